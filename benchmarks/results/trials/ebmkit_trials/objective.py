"""The `trial_weighted` objective."""

from __future__ import annotations

from ebmkit_contrastive.objective import ContrastiveDivergence
from pydantic import Field

from ebmkit import BaseOptions, Pairs, Term


class TrialWeighted(ContrastiveDivergence):
    """`mean w(t) (f(x_pos, t) - f(x_neg, t))`: eq. 16 with a weight for each time step. Not in the paper.

    `w` goes geometrically from `late^(-1/2)` at t = T to `late^(1/2)` at t = 1, so that 1 is `contrastive_divergence`.
    """

    name = "trial_weighted"

    class Options(BaseOptions):
        """Options of `trial_weighted`."""

        late: float = Field(default=1.0, gt=0, le=1000, description="The weight at t = 1 over that at t = T.")

    options: Options

    def loss(self, pairs: Pairs) -> Term:
        """The weighted difference of the energies; metrics are those of `contrastive_divergence`."""
        plain = super().loss(pairs)
        last = max(self.context.time_steps - 1, 1)
        weight = self.options.late ** ((self.context.time_steps - pairs.t) / last - 0.5)
        positive, negative = pairs.energies
        return Term((weight * (positive - negative)).mean(), plain.metrics)
