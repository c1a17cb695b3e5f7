"""The run's buffer and sampler, as an objective may use them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ebmkit import calls
from ebmkit.interfaces import Buffer, Draw, EnergyFunction, Sampler
from ebmkit.noise import GeneratorNoise


class BufferChains:
    """Chains from a buffer, refined by a sampler; every random number comes from `random`."""

    def __init__(
        self,
        energy: EnergyFunction,
        sampler: Sampler,
        buffer: Buffer,
        random: torch.Generator,
        drawn: Callable[[Draw], Draw] = lambda draw: draw,
        refined: Callable[[Tensor, Tensor], Tensor] = lambda after, before: after,
    ) -> None:
        self.energy, self.sampler, self.buffer, self.random = energy, sampler, buffer, random
        self.drawn, self.refined = drawn, refined

    def draw(self, n: int) -> Draw:
        """`n` chains from the buffer, as `drawn` makes them."""
        return self.drawn(calls.draw(self.buffer, n, self.random))

    def refine(self, x: Tensor, t: Tensor, energy: EnergyFunction | None = None) -> Tensor:
        """K sampler steps on the trained energy, or on another one, as `refined` makes them of what was before."""
        return self.refined(calls.refine(self.sampler, energy or self.energy, x, t, GeneratorNoise(self.random)), x)
