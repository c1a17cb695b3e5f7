"""The `langevin` sampler."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ebmkit import BaseOptions, Context, EnergyFunction, NoiseSource, Sampler, ScheduleOption, SweepBudget
from ebmkit.reachability import step_size_for

if TYPE_CHECKING:
    from torch import Tensor

AUTO_GRADIENT_NORM = 1.05
"""The norm that a WGAN-LP penalty of weight 200 holds in practice (`docs/method.md`)."""

LONGEST_SWEEP = 1_000_000
"""Gradient evaluations; the paper has 60."""


class Langevin(Sampler):
    """K Langevin steps: `x <- x - eta/2 * grad_x f(x, t) + sigma * N(0, I)` (eq. 9, Algorithm 1).

    Step size and noise are two separate settings, as in the paper's Table 7. Both are schedules over the sweep:
    progress is 0 at the first step at t = T and 1 at the very last step at t = 1, so a noise that ends at 0 is
    exactly 0 there.
    """

    name = "langevin"

    class Options(BaseOptions):
        """Options of the `langevin` sampler."""

        steps: int = Field(default=3, ge=1, le=100_000, description="K: Langevin steps at each time step.")
        step_size: ScheduleOption | Literal["auto"] = Field(
            default="auto",
            description="eta, a number or a schedule over the sweep; 'auto' takes the constant with which a sweep "
            "reaches the data under a per-sample gradient norm of 1 (the reachability rule).",
        )
        noise: ScheduleOption = Field(
            default={"use": "linear", "start": 0.3, "end": 0.0},
            validate_default=True,
            description="sigma, the standard deviation of the noise: a number or a schedule over the sweep.",
        )
        anneal: Literal["step", "time_step"] = Field(
            default="step",
            description="Progress of the schedules counts all T*K steps, or the T time steps (constant over each K).",
        )
        auto_ratio: float = Field(
            default=1.1, gt=0, le=10, description="The reachability ratio that step_size = 'auto' aims at."
        )
        clip_gradient: float | None = Field(
            default=None, gt=0, description="Largest norm of a sample's energy gradient; off by default."
        )
        clamp: float | None = Field(
            default=None, gt=0, description="Keep x within [-clamp, clamp] after each step; off by default."
        )

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        import torch

        super().__init__(options, context)
        table = torch.tensor(sweep_table(options, context), dtype=torch.float64)
        self.step_sizes, self.sigmas = table.to(torch.float32).to(context.device).unbind(-1)
        """eta and sigma, each `[T, K]`: the first row belongs to t = T."""

    @property
    def steps(self) -> int:
        """K."""
        return self.options.steps

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        """K steps of eq. 9 from `x[B, C, H, W]` at `t[B]`."""
        from ebmkit import energy_gradient
        from ebmkit_langevin.functional import clip_norm, langevin_step

        x = x.detach()
        row = self.context.time_steps - t
        step_sizes, sigmas = self.step_sizes.to(x.dtype)[row], self.sigmas.to(x.dtype)[row]
        for k in range(self.steps):
            gradient = energy_gradient(energy, x, t)
            if self.options.clip_gradient is not None:
                gradient = clip_norm(gradient, self.options.clip_gradient)
            x = langevin_step(x, gradient, step_sizes[:, k], sigmas[:, k], noise.normal_like(x))
            if self.options.clamp is not None:
                x = x.clamp(-self.options.clamp, self.options.clamp)
        return x

    @classmethod
    def sweep_budget(cls, options: Any, context: Context) -> SweepBudget:
        """Sums of `eta / 2` and `sigma^2` over the sweep's T*K steps."""
        values = [pair for row in sweep_table(options, context) for pair in row]
        return SweepBudget(
            travel=sum(eta / 2 for eta, _ in values),
            noise=sum(sigma * sigma for _, sigma in values),
            needs_gradient_bound=options.step_size == "auto",
        )

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """A sweep without end, and schedules that go below 0 somewhere in it."""
        length = context.time_steps * options.steps
        if length > LONGEST_SWEEP:
            return [f"steps: time_steps * steps must be at most {LONGEST_SWEEP:,}, not {length:,}"]
        values = [pair for row in sweep_table(options, context) for pair in row]
        found = []
        if options.anneal == "time_step" and context.time_steps == 1:
            found.append("anneal: 'time_step' has nothing to anneal over with time_steps = 1; use 'step'")
        if min(eta for eta, _ in values) < 0:
            found.append("step_size: falls below 0 within the sweep; sampling would climb the energy")
        if min(sigma for _, sigma in values) < 0:
            found.append("noise: falls below 0 within the sweep; a standard deviation cannot")
        budget = cls.sweep_budget(options, context)
        if not math.isfinite(budget.noise):
            found.append("noise: too large to compute with")
        elif not math.isfinite(budget.travel):
            found.append("step_size: too large to compute with")
        return found


def sweep_table(options: Langevin.Options, context: Context) -> list[list[tuple[float, float]]]:
    """(eta, sigma) of every step of the sweep, `[T][K]`, the first row for t = T."""
    time_steps, steps = context.time_steps, options.steps
    sigmas = [options.noise(p) for p in _progress(options, time_steps)]
    if isinstance(options.step_size, str):
        channels, height, width = context.image_shape
        added = sum(sigma * sigma for sigma in sigmas)
        eta = step_size_for(
            options.auto_ratio, time_steps * steps, added, channels * height * width, AUTO_GRADIENT_NORM
        )
        etas = [eta] * len(sigmas)
    else:
        etas = [options.step_size(p) for p in _progress(options, time_steps)]
    pairs = list(zip(etas, sigmas, strict=True))
    return [pairs[row * steps : (row + 1) * steps] for row in range(time_steps)]


def _progress(options: Langevin.Options, time_steps: int) -> list[float]:
    count = time_steps * options.steps
    if options.anneal == "time_step":
        # `problems` refuses a single time step, over which nothing can be annealed.
        return [(i // options.steps) / max(time_steps - 1, 1) for i in range(count)]
    # A sweep of a single step is its own last step.
    return [i / (count - 1) for i in range(count)] if count > 1 else [1.0]
