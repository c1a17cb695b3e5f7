"""The sampler `underdamped`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ebmkit import BaseOptions, Context, EnergyFunction, NoiseSource, Sampler, ScheduleOption, SweepBudget
from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor


class Underdamped(Sampler):
    """Underdamped Langevin dynamics: images move with a velocity `v`, which begins as N(0, temperature) at each `t`.

    `v <- a v - h grad_x f(x, t) + sqrt((1 - a^2) temperature) N(0, I)`, then `x <- x + h v`, with `a = exp(-friction h)`.
    For small `h` and a constant temperature this samples `exp(-f / temperature)`.
    """

    name = "underdamped"

    class Options(BaseOptions):
        """Options of `underdamped`."""

        steps: int = Field(default=3, ge=1, le=1000, description="K: steps at each time step.")
        step_size: float = Field(default=0.4, gt=0, le=100, description="h, the time of one step.")
        friction: float = Field(default=1.0, ge=0, le=1000, description="How fast the velocity is forgotten.")
        temperature: ScheduleOption = Field(
            default={"use": "linear", "start": 0.05, "end": 0.0},
            validate_default=True,
            description="Variance of the velocity: a number, or a schedule over the time steps of a sweep.",
        )

        @property
        def decay(self) -> float:
            """`a`: what is left of the velocity after a step."""
            return math.exp(-self.friction * self.step_size)

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        import torch

        super().__init__(options, context)
        self.temperatures = torch.tensor(temperatures(options, context), dtype=torch.float64, device=context.device)

    @property
    def steps(self) -> int:
        """K."""
        return self.options.steps

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        """K steps from `x[B, C, H, W]` at `t[B]`."""
        from ebmkit import energy_gradient

        h, decay = self.options.step_size, self.options.decay
        # One temperature for each image: their time steps may differ.
        temperature = self.temperatures[self.context.time_steps - t].to(x.dtype).view(-1, 1, 1, 1)
        x, v = x.detach(), temperature.sqrt() * noise.normal_like(x)
        for _ in range(self.steps):
            gradient = energy_gradient(energy, x, t)
            kick = (temperature * (1 - decay**2)).sqrt() * noise.normal_like(x)
            v = decay * v - h * gradient + kick
            x = x + h * v
        return x

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """Temperatures below zero."""
        below = min(temperatures(options, context)) < 0
        return ["temperature: falls below 0 within the sweep; a variance cannot"] if below else []

    @classmethod
    def sweep_budget(cls, options: Any, context: Context) -> SweepBudget:
        """The way under a gradient of norm 1, and the variance of a pixel without gradient, by following both."""
        h, decay, steps = options.step_size, options.decay, options.steps
        # What one unit of velocity at the begin of a step moves until the end of the K steps.
        reach = [h * sum(decay**i for i in range(steps - k)) for k in range(steps)]
        noise = (decay * reach[0]) ** 2 + (1 - decay**2) * sum(r * r for r in reach)
        return SweepBudget(
            travel=context.time_steps * h * sum(reach),
            noise=noise * sum(temperatures(options, context)),
        )


def temperatures(options: Underdamped.Options, context: Context) -> list[float]:
    """The temperature at t = T, ..., 1."""
    last = max(context.time_steps - 1, 1)
    return [options.temperature(i / last) for i in range(context.time_steps)]
