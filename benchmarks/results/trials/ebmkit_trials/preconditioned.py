"""The `preconditioned_langevin` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebmkit_langevin.sampler import AUTO_GRADIENT_NORM, Langevin
from pydantic import Field

from ebmkit import Context, EnergyFunction, NoiseSource
from ebmkit.reachability import DATA_SECOND_MOMENT, step_size_for

if TYPE_CHECKING:
    from torch import Tensor


class PreconditionedLangevin(Langevin):
    """`x <- x - eta/2 * P grad_x f(x, t) + sigma * P^(1/2) N(0, I)`, from `start * P^(1/2) N(0, I)`. Not in the paper.

    P (`Preconditioner`) multiplies each spatial frequency k by `(|k|^2 + 1 / (H W))^-spectrum` and differences between
    channels by `chroma`, scaled to a mean of 1. It is Langevin dynamics (eq. 9) of the images `y = P^(-1/2) x`, and
    `step_size = "auto"` is for gradients by y of norm 1, those that `trial_lp` with the same values holds, and for
    `E||y||^2 = 0.27 D`, which is that of x.

    t = T is taken for the start of a chain, as the buffer `cyclic` has it; `persistent` gives no such sign.
    """

    name = "preconditioned_langevin"

    class Options(Langevin.Options):
        """Options of `preconditioned_langevin`."""

        spectrum: float = Field(
            default=1.0, ge=0, le=3, description="Exponent of P over frequencies: 0 is white, 1 as photographs."
        )
        chroma: float = Field(
            default=1.0, gt=0, le=1, description="What P gives to differences between channels, of what to their mean."
        )
        start: float = Field(
            default=1.0, gt=0, le=3, description="Standard deviation of the pixels of a chain's start; N(0, I) has 1."
        )

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        from ebmkit_trials.preconditioner import Preconditioner

        super().__init__(options, context)
        self.preconditioner = Preconditioner(context.image_shape, options.spectrum, options.chroma, context.device)
        if options.step_size == "auto":
            self.step_sizes = self.step_sizes * 0 + auto_step(options, context)

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        """K steps from `x[B, C, H, W]` at `t[B]`, from the start of a chain where t = T."""
        from ebmkit_langevin.functional import langevin_step

        from ebmkit import energy_gradient

        starts = (t == self.context.time_steps).view(-1, 1, 1, 1)
        p = self.preconditioner
        x = (self.options.start * p.root(x.detach())).where(starts, x.detach())
        row = self.context.time_steps - t
        step_sizes, sigmas = self.step_sizes.to(x.dtype)[row], self.sigmas.to(x.dtype)[row]
        for k in range(self.steps):
            step = p.apply(energy_gradient(energy, x, t))
            x = langevin_step(x, step, step_sizes[:, k], sigmas[:, k], p.root(noise.normal_like(x)))
        return x

    @classmethod
    def sweep_budget(cls, options: Any, context: Context) -> Any:
        """The reachability rule is about x, and the steps are of norm `eta / 2` in y."""
        return None

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """A single time step, at which no start of a chain could be told from its end, and what steps do not do."""
        found = []
        if context.time_steps == 1:
            found.append("use: 'preconditioned_langevin' needs time_steps of 2 or more: t = T is the start of a chain")
        if options.clip_gradient is not None or options.clamp is not None:
            found.append("use: 'preconditioned_langevin' neither clips nor clamps")
        return found


def auto_step(options: Any, context: Context) -> float:
    """The step that arrives from the nearer start."""
    from ebmkit_langevin.sampler import sweep_table

    channels, height, width = context.image_shape
    rows = sweep_table(options, context)
    added = sum(sigma**2 for row in rows for _, sigma in row)
    steps, dimensions = context.time_steps * options.steps, channels * height * width
    usual = step_size_for(options.auto_ratio, steps, added, dimensions, AUTO_GRADIENT_NORM)
    ratio = (options.start**2 + added + DATA_SECOND_MOMENT) / (1 + added + DATA_SECOND_MOMENT)
    return float(usual * ratio**0.5)
