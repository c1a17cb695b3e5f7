"""Following a sweep: the images at each time step, with their energies and gradient norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ebmkit.fast.energy import energy_gradient
from ebmkit.interfaces import NoiseSource, Sampler
from ebmkit.model import Model
from ebmkit.noise import PerImageNoise
from ebmkit.sampling import start_noise

Count = Callable[[int], None]
"""Called with the number of time steps done in this sweep."""


class Place(NamedTuple):
    """Images `x[B, C, H, W]` at a place of the sweep, on the CPU, and the time step `t` of whose energy they are."""

    name: str
    t: int
    x: Tensor


def follow(
    model: Model, noise: NoiseSource, count: int, sampler: Sampler | None = None, done: Count | None = None
) -> list[Place]:
    """The T + 1 places of a sweep of `count` images: the start noise (at t = T), then after the steps of each t.

    The last place has the images that `Model.sample` draws from this noise.
    """
    time_steps = model.recipe.time_steps
    model.require_memory(count)
    start = start_noise(noise, count, model.image_shape, model.device)
    places = [Place("noise", time_steps, start.float().cpu())]

    def observe(t: int, x: Tensor) -> None:
        places.append(Place(f"t = {t}", t, x.float().cpu()))
        if done is not None:
            done(time_steps - t + 1)

    model.sweep(start, noise, sampler, observe)
    return places


def follow_seed(
    model: Model, seed: int, indices: range, sampler: Sampler | None = None, done: Count | None = None
) -> list[Place]:
    """`follow`, with the noise of these images of a seed."""
    return follow(model, PerImageNoise(seed, indices, model.device), len(indices), sampler, done)


def energies(model: Model, x: Tensor, t: int) -> Tensor:
    """`f(x, t)` of `x[B, C, H, W]`, `[B]`, float32 on the CPU."""
    return model(x, t).float().cpu()


def gradient_norms(model: Model, x: Tensor, t: int) -> Tensor:
    """`|grad_x f(x, t)|` over C, H, W of each image of `x[B, C, H, W]`, `[B]`, float32 on the CPU."""
    x = x.to(model.device)
    times = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
    norms: Tensor = torch.linalg.vector_norm(energy_gradient(model.energy, x, times).float().flatten(1), dim=1)
    return norms.cpu()
