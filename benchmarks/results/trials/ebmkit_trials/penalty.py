"""The `trial_lp` regularizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebmkit_wgan.regularizers import HELD_NORM
from pydantic import Field

from ebmkit import BaseOptions, Context, Pairs, Regularizer, Term

if TYPE_CHECKING:
    import torch


class TrialLP(Regularizer):
    """`lambda * mean relu(||P^(1/2) grad_xhat f(xhat, t)|| - 1)^2` over a share of the batch. Not in the paper.

    P is that of `preconditioned_langevin`; with `spectrum` 0, `chroma` 1 and `share` 1 it is `wgan_lp` (eq. 19).
    """

    name = "trial_lp"
    needs_double_backward = True

    class Options(BaseOptions):
        """Options of `trial_lp`."""

        weight: float = Field(default=10.0, gt=0, description="lambda, the weight of the penalty in the loss.")
        spectrum: float = Field(default=0.0, ge=0, le=3, description="That of `preconditioned_langevin`.")
        chroma: float = Field(default=1.0, gt=0, le=1, description="That of `preconditioned_langevin`.")
        share: float = Field(
            default=1.0, gt=0, le=1, description="Share of the batch that is penalized, at least one image."
        )

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        from ebmkit_trials.preconditioner import Preconditioner

        super().__init__(options, context)
        self.preconditioner = Preconditioner(context.image_shape, options.spectrum, options.chroma, context.device)

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term:
        """The penalty at `xhat = a * x_neg + (1 - a) * x_pos`, `a ~ U(0, 1)`, for the first images of the batch."""
        import torch
        from ebmkit_wgan.functional import interpolate, one_sided

        from ebmkit import energy_gradient

        count = max(1, round(self.options.share * len(pairs.x_pos)))
        x, x_neg, t = pairs.x_pos[:count], pairs.x_neg[:count], pairs.t[:count]
        a = torch.rand(count, generator=generator, device=x.device, dtype=x.dtype)
        gradient = energy_gradient(pairs.energy, interpolate(x, x_neg, a), t, create_graph=True)
        norm = torch.linalg.vector_norm(self.preconditioner.root(gradient), dim=(1, 2, 3))
        value = self.options.weight * one_sided(norm)
        return Term(value, {"penalty": value.detach(), "input_gradient_norm": norm.detach().mean()})

    @classmethod
    def gradient_bound(cls, options: Any) -> float | None:
        """As `wgan_lp` where the gradient is measured as it is; else a bound of another norm."""
        return HELD_NORM
