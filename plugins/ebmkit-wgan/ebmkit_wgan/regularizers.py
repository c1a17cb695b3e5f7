"""The `wgan_lp` and `wgan_gp` regularizers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ebmkit import BaseOptions, Pairs, Regularizer, Term

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HELD_NORM = 1.05
"""Where the penalty holds the per-sample norm in practice, a little above its target of 1."""


class GradientPenalty(Regularizer):
    """A penalty on the energy's input gradient between chains and data."""

    needs_double_backward = True

    class Options(BaseOptions):
        """Options of a gradient penalty."""

        weight: float = Field(default=200.0, ge=0, description="lambda, the weight of the penalty in the loss.")
        norm: Literal["sample", "pixel"] = Field(
            default="sample",
            description="Norm over C, H, W of each sample (eq. 18, 19), or over the channels of each pixel, "
            "the penalty then averaged over pixels.",
        )

    options: Options

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term:
        """`lambda * penalty(||grad_xhat f(xhat, t)||)` at `xhat = a * x_neg + (1 - a) * x_pos`, `a ~ U(0, 1)`."""
        import torch

        from ebmkit_wgan.functional import gradient_norm, interpolate

        x = pairs.x_pos
        a = torch.rand(x.shape[0], generator=generator, device=x.device, dtype=x.dtype)
        norm = gradient_norm(pairs.energy, interpolate(x, pairs.x_neg, a), pairs.t, self.options.norm)
        value = self.options.weight * self.measure(norm)
        return Term(value, {"penalty": value.detach(), "input_gradient_norm": norm.detach().mean()})

    @abstractmethod
    def measure(self, norm: Tensor) -> Tensor:
        """The scalar that the weight multiplies."""

    @classmethod
    def gradient_bound(cls, options: Any) -> float | None:
        """About 1 per sample; a norm per pixel bounds no sample."""
        return HELD_NORM if options.norm == "sample" and options.weight > 0 else None


class WganLP(GradientPenalty):
    """WGAN-LP (eq. 19): `lambda * mean relu(||grad_xhat f(xhat, t)||_2 - 1)^2`, gradients up to norm 1 are free."""

    name = "wgan_lp"

    def measure(self, norm: Tensor) -> Tensor:
        """One-sided."""
        from ebmkit_wgan.functional import one_sided

        return one_sided(norm)


class WganGP(GradientPenalty):
    """WGAN-GP (eq. 18): `lambda * mean (||grad_xhat f(xhat, t)||_2 - 1)^2`, gradients are pulled to norm 1."""

    name = "wgan_gp"

    def measure(self, norm: Tensor) -> Tensor:
        """Two-sided."""
        from ebmkit_wgan.functional import two_sided

        return two_sided(norm)
