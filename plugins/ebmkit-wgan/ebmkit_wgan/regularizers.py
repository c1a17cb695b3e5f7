"""The `wgan_lp` and `wgan_gp` regularizers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ebmkit import BaseOptions, Context, Pairs, Regularizer, Term

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
        share: float = Field(
            default=1.0,
            gt=0,
            le=1,
            description="Share of the batch that is penalized, at least one image: half of it takes half of the time, "
            "and the mean is estimated from fewer.",
        )

        spectrum: float = Field(
            default=0.0,
            ge=0,
            le=3,
            description="Measures the gradient as `preconditioned_langevin` of this `spectrum` follows it; 0 as it is.",
        )
        chroma: float = Field(default=1.0, gt=0, le=1, description="The same for its `chroma`; 1 as it is.")

        @property
        def plain(self) -> bool:
            """Whether the gradient is measured as it is."""
            return self.spectrum == 0 and self.chroma == 1

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        super().__init__(options, context)
        self.root: Callable[[Tensor], Tensor] | None = None
        if not options.plain:
            from ebmkit.spectrum import Preconditioner

            shape, device = context.image_shape, context.device
            self.root = Preconditioner(shape, options.spectrum, options.chroma, device).root

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term:
        """`lambda * penalty(||grad_xhat f(xhat, t)||)` at `xhat = a * x_neg + (1 - a) * x_pos`, `a ~ U(0, 1)`."""
        import torch

        from ebmkit_wgan.functional import gradient_norm, interpolate

        # The first ones: images and chains are in random order.
        count = max(1, round(self.options.share * len(pairs.x_pos)))
        x, x_neg, t = pairs.x_pos[:count], pairs.x_neg[:count], pairs.t[:count]
        a = torch.rand(count, generator=generator, device=x.device, dtype=x.dtype)
        norm = gradient_norm(pairs.energy, interpolate(x, x_neg, a), t, self.options.norm, self.root)
        value = self.options.weight * self.measure(norm)
        return Term(value, {"penalty": value.detach(), "input_gradient_norm": norm.detach().mean()})

    @abstractmethod
    def measure(self, norm: Tensor) -> Tensor:
        """The scalar that the weight multiplies."""

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """A preconditioner is one of whole images."""
        if not options.plain and options.norm == "pixel":
            return ["norm: spectrum and chroma go with norm = 'sample', not with a norm of single pixels"]
        return []

    @classmethod
    def gradient_bound(cls, options: Any) -> float | None:
        """About 1 per sample; a norm per pixel bounds no sample, and a preconditioner another gradient."""
        return HELD_NORM if options.norm == "sample" and options.plain and options.weight > 0 else None


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
