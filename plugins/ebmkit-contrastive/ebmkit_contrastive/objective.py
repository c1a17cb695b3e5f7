"""The `contrastive_divergence` objective."""

from __future__ import annotations

from ebmkit import BufferedObjective, Pairs, Term


class ContrastiveDivergence(BufferedObjective):
    """Contrastive divergence (eq. 16): `mean f(x_pos, t) - mean f(x_neg, t)`.

    Minimising it lowers the energy of data and raises that of the sampler's chains. (The loss as printed in Algorithm 1
    has the other sign, and its chains would run away from the data.)
    """

    name = "contrastive_divergence"

    def loss(self, pairs: Pairs) -> Term:
        """The difference of the mean energies."""
        positive, negative = (energy.mean() for energy in pairs.energies)
        loss = positive - negative
        metrics = {"contrastive_divergence": loss, "energy_data": positive, "energy_samples": negative}
        return Term(loss, {name: value.detach() for name, value in metrics.items()})
