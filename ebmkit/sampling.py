"""The sweep: one pass through t = T, ..., 1, the same computation in training and in sampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ebmkit import calls
from ebmkit.interfaces import EnergyFunction, NoiseSource, Sampler


def sweep(
    energy: EnergyFunction,
    sampler: Sampler,
    x: Tensor,
    time_steps: int,
    noise: NoiseSource,
    observe: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Refine `x[B, C, H, W]` at t = T, ..., 1; returns the images, `[B, C, H, W]`.

    `observe(t, x)` is called after each time step, for trajectories and progress.
    """
    for step in range(time_steps, 0, -1):
        t = torch.full((x.shape[0],), step, dtype=torch.int64, device=x.device)
        # As in training: samplers switch gradients on where they need them.
        with torch.no_grad():
            x = calls.refine(sampler, energy, x, t, noise)
        if observe is not None:
            observe(step, x)
    return x


def start_noise(noise: NoiseSource, count: int, shape: tuple[int, int, int], device: str) -> Tensor:
    """`x ~ N(0, I)`, `[count, C, H, W]`, with which a sweep starts."""
    return noise.normal_like(torch.empty(count, *shape, device=device))


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, `[B, C, H, W]`; values outside are clamped, others rounded."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1], `[B, C, H, W]`."""
    return images.float() / 127.5 - 1
