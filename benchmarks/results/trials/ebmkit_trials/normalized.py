"""The `normalized_langevin` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebmkit_langevin.sampler import Langevin

from ebmkit import EnergyFunction, NoiseSource

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 1e-3
"""Gradients of a smaller norm are made longer, but not to 1."""


class NormalizedLangevin(Langevin):
    """`x <- x - eta/2 * g / ||g|| + sigma * N(0, I)` with `g = grad_x f(x, t)`. Not in the paper.

    A sweep travels what its steps add up to, whatever norm the penalty holds: no rule has to find the step size.
    """

    name = "normalized_langevin"

    class Options(Langevin.Options):
        """Options of `normalized_langevin`."""

    options: Options

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        """K steps from `x[B, C, H, W]` at `t[B]`."""
        import torch
        from ebmkit_langevin.functional import langevin_step

        from ebmkit import energy_gradient

        x, row = x.detach(), self.context.time_steps - t
        step_sizes, sigmas = self.step_sizes.to(x.dtype)[row], self.sigmas.to(x.dtype)[row]
        for k in range(self.steps):
            gradient = energy_gradient(energy, x, t)
            norm = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
            direction = gradient / norm.clamp_min(LEAST)
            x = langevin_step(x, direction, step_sizes[:, k], sigmas[:, k], noise.normal_like(x))
        return x
