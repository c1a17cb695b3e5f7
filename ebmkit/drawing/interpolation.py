"""From one image to another through the noise that they are drawn with (the paper's Figure 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmkit.drawing import style, tiles
from ebmkit.drawing.tracing import Count, energies
from ebmkit.interfaces import NoiseSource
from ebmkit.model import Model
from ebmkit.noise import PerImageNoise
from ebmkit.sampling import start_noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARALLEL = 1e-6
"""Radians; between noises that are nearer than this, a straight line is as good."""


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point at `share` of the arc from each `a[i]` to `b[i]`, `[B, ...]`; the lengths are interpolated with it.

    `(sin((1 - s) w) a + sin(s w) b) / sin w`, where w is the angle between the two (Shoemake 1985). The ends are `a`
    and `b` themselves.
    """
    if share in (0.0, 1.0):
        return b if share else a
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1).float(), b.flatten(1).float(), dim=1)
    angle = cosine.clamp(-1, 1).acos()
    near = angle < PARALLEL
    sine = torch.where(near, torch.ones_like(angle), angle.sin())
    of_a = torch.where(near, torch.full_like(angle, 1 - share), ((1 - share) * angle).sin() / sine)
    of_b = torch.where(near, torch.full_like(angle, share), (share * angle).sin() / sine)
    column = (-1,) + (1,) * (a.ndim - 1)
    return of_a.to(a.dtype).view(column) * a + of_b.to(a.dtype).view(column) * b


class BetweenNoise:
    """A noise source at `share` of the way between two others: each of its draws is interpolated."""

    def __init__(self, a: NoiseSource, b: NoiseSource, share: float) -> None:
        self.a, self.b, self.share = a, b, share

    def normal_like(self, x: Tensor) -> Tensor:
        """N(0, 1) values like `x`, on the arc between those of the two sources."""
        return slerp(self.a.normal_like(x), self.b.normal_like(x), self.share)

    def uniform_like(self, x: Tensor) -> Tensor:
        """U[0, 1) values like `x`: between those of the two sources, by way of the normal distribution."""
        a, b = self.a.uniform_like(x), self.b.uniform_like(x)
        if self.share in (0.0, 1.0):
            return b if self.share else a
        # Values independent of each other: a turn by a fixed angle keeps their law, an arc between two would not.
        angle, least = self.share * math.pi / 2, torch.finfo(x.dtype).eps / 2
        normal = [torch.special.ndtri(u.clamp(least, 1 - least)) for u in (a, b)]
        between = torch.special.ndtr(math.cos(angle) * normal[0] + math.sin(angle) * normal[1])
        kept: Tensor = between.clamp_max(1 - least)
        return kept


@dataclass(frozen=True)
class Interpolation:
    """R rows of images between two seeds, `images[R, N, C, H, W]`; `energies[R, N]` at t = 1; `shares` of the way."""

    shares: tuple[float, ...]
    images: Tensor
    energies: Tensor

    def numbers(self) -> dict[str, Any]:
        """What the picture shows, as JSON values: one row for each row of it; pixels' root mean square steps."""
        steps = (self.images[:, 1:] - self.images[:, :-1]).flatten(2).square().mean(2).sqrt()
        return {"shares": list(self.shares), "energies": self.energies.tolist(), "pixel_steps": steps.tolist()}


def compute(
    model: Model, rows: int, columns: int, seed: int, other_seed: int, done: Count | None = None
) -> Interpolation:
    """Image i of `seed` becomes image i of `other_seed`, for i < `rows`, in `columns` images with both ends.

    The ends are, bit for bit, what `Model.sample(rows, seed)` and `Model.sample(rows, other_seed)` draw on this device.
    """
    model.require_memory(rows)
    shares = tuple(number / (columns - 1) for number in range(columns))
    images = []
    # A column at a time: the ends are the very batches that `sample` draws, whose rounding depends on their size.
    for number, share in enumerate(shares):
        ends = [PerImageNoise(end, range(rows), model.device) for end in (seed, other_seed)]
        noise = BetweenNoise(ends[0], ends[1], share)
        images.append(model.sweep(start_noise(noise, rows, model.image_shape, model.device), noise))
        if done is not None:
            done(number + 1)
    stacked = torch.stack(images, dim=1)
    values = energies(model, stacked.flatten(0, 1), 1).reshape(rows, columns)
    return Interpolation(shares, stacked, values)


def draw(interpolation: Interpolation, title: str = "") -> Figure:
    """A row of images for each pair of ends."""
    rows, columns, *shape = interpolation.images.shape
    width, height = tiles.size(rows, columns, (shape[0], shape[1], shape[2]))
    figure, (axes,) = style.figure(title=title, width=width, height=height)
    tiles.show(
        axes, interpolation.images, [f"{share:.0%}" for share in interpolation.shares], [str(i) for i in range(rows)]
    )
    style.label(axes, y="image of the seeds")
    return figure
