"""The `preconditioned_langevin` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ebmkit import Context
from ebmkit_langevin.sampler import Langevin

if TYPE_CHECKING:
    from torch import Tensor


class PreconditionedLangevin(Langevin):
    """`x <- x - eta/2 * P grad_x f(x, t) + sigma * P^(1/2) N(0, I)`, and chains start from `start * P^(1/2) N(0, I)`.

    P (`ebmkit.spectrum.Preconditioner`) multiplies each spatial frequency k by `(|k|^2 + 1 / (H W))^-spectrum` and
    differences between channels by `chroma`, scaled to a mean of 1: chains move far where photographs vary much. It is
    Langevin dynamics (eq. 9) of the images `y = P^(-1/2) x`, and `step_size = "auto"` is for gradients by y of norm 1:
    those that a penalty with the same `spectrum` and `chroma` holds.
    """

    name = "preconditioned_langevin"

    class Options(Langevin.Options):
        """Options of `preconditioned_langevin`."""

        spectrum: float = Field(
            default=1.0,
            ge=0,
            le=3,
            description="Exponent of P over frequencies: 0 is white, 1 falls as photographs do.",
        )
        chroma: float = Field(
            default=0.1,
            gt=0,
            le=1,
            description="What P gives to differences between channels, of what it gives to their mean: 1 treats them "
            "alike, photographs have about 0.05.",
        )
        start: float = Field(
            default=1.0, gt=0, le=10, description="Standard deviation of the pixels of a chain's start; N(0, I) has 1."
        )

        @property
        def start_variance(self) -> float:
            """Variance per pixel of what a chain starts from: P has a mean of 1."""
            return self.start**2

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        from ebmkit.spectrum import Preconditioner

        super().__init__(options, context)
        self.preconditioner = Preconditioner(context.image_shape, options.spectrum, options.chroma, context.device)

    def begin(self, x: Tensor, t: Tensor) -> Tensor:
        """`start * P^(1/2) x` where a chain starts, which is what t = T means."""
        starts = (t == self.context.time_steps).view(-1, 1, 1, 1)
        return (self.options.start * self.preconditioner.root(x)).where(starts, x)

    def direction(self, gradient: Tensor) -> Tensor:
        """`P grad_x f(x, t)`."""
        return self.preconditioner.apply(gradient)

    def color(self, noise: Tensor) -> Tensor:
        """`P^(1/2) N(0, I)`."""
        return self.preconditioner.root(noise)

    @classmethod
    def sweep_budget(cls, options: Any, context: Context) -> None:
        """The reachability rule is about x, and the steps are of norm `eta / 2` in y."""
        return

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """A single time step, at which no start of a chain could be told from its end."""
        found = super().problems(options, context)
        if context.time_steps == 1:
            found.append("use: 'preconditioned_langevin' needs time_steps of 2 or more: t = T is the start of a chain")
        return found
