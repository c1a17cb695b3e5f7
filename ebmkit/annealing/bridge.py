"""The path of densities from a Gaussian to the model: `log p_beta = (1 - beta) log q(x) - beta f(x) + constant`.

They are densities over all real images, or over a cube of them, outside of which they are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]
"""`f(x[N, C, H, W]) -> [N]`, at one time step and temperature."""


@dataclass(frozen=True)
class GaussianBase:
    """`q = N(mean, deviation^2 I)`, `mean[C, H, W]`, normalised; with an `edge`, within the cube `[-edge, edge]^D`."""

    mean: Tensor
    deviation: float
    edge: float | None = None

    @classmethod
    def fitted(cls, x: Tensor, edge: float | None = None) -> GaussianBase:
        """To images `x[N, C, H, W]`: their mean, and the deviation of all pixels around it."""
        mean = x.mean(0)
        return cls(mean, max(1e-3, float((x - mean).double().square().mean().sqrt())), edge)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`[count, C, H, W]`."""
        shape, device = (count, *self.mean.shape), self.mean.device
        if self.edge is None:
            noise = torch.randn(shape, generator=generator, device=device)
            return self.mean + self.deviation * noise
        low, high = self._at_edges(self.edge)
        uniform = torch.rand(shape, generator=generator, device=device, dtype=low.dtype)
        found: Tensor = self.mean.double() + self.deviation * torch.special.ndtri(low + uniform * (high - low))
        return found.clamp(-self.edge, self.edge).to(self.mean.dtype)

    def log_density(self, x: Tensor) -> Tensor:
        """`log q(x)`, `[N]` float64, for `x` where it is not 0."""
        scaled = ((x - self.mean).double() / self.deviation).flatten(1)
        found = -scaled.square().sum(1) / 2 - scaled.shape[1] * math.log(self.deviation * math.sqrt(2 * math.pi))
        if self.edge is not None:
            low, high = self._at_edges(self.edge)
            found = found - (high - low).log().sum()
        return found

    def _at_edges(self, edge: float) -> tuple[Tensor, Tensor]:
        """The distribution function of each pixel at both edges of the cube."""
        mean = self.mean.double()
        ends = ((end - mean) / self.deviation for end in (-edge, edge))
        low, high = (torch.special.ndtr(end) for end in ends)
        return low, high


class State(NamedTuple):
    """Where the chains are, with all that the densities of any `beta` need: nothing is evaluated twice."""

    x: Tensor
    energy: Tensor
    """`f(x)`, `[N]` float64."""
    gradient: Tensor
    """`grad f(x)`, as `x`."""
    log_base: Tensor
    """`log q(x)`, `[N]` float64."""

    @property
    def slope(self) -> Tensor:
        """`d log p_beta(x) / d beta = -f(x) - log q(x)`, `[N]`, without the constant."""
        return -self.energy - self.log_base

    def log_density(self, beta: float) -> Tensor:
        """`log p_beta(x)` without its constant, `[N]`."""
        return (1 - beta) * self.log_base - beta * self.energy

    def where(self, chosen: Tensor, other: State) -> State:
        """The chains `chosen[N]` of this state, and the rest of another."""
        wide = chosen.view(-1, 1, 1, 1)
        return State(
            torch.where(wide, self.x, other.x),
            torch.where(chosen, self.energy, other.energy),
            torch.where(wide, self.gradient, other.gradient),
            torch.where(chosen, self.log_base, other.log_base),
        )


def state_at(energy: Energy, base: GaussianBase, x: Tensor) -> State:
    """Evaluate energy and gradient at `x[N, C, H, W]`."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = energy(x)
        # The sum has each chain's own gradient, because energies do not mix images.
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return State(x.detach(), value.detach().double(), gradient, base.log_density(x.detach()))
