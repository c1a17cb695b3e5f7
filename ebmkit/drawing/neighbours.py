"""The training images that are nearest to samples, by cosine similarity (Figures 6 to 9): is anything copied?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmkit.drawing import style, tiles
from ebmkit.drawing.features import Features, normalized
from ebmkit.drawing.real import Done, Say, all_parts, unheard
from ebmkit.options import DataOptions
from ebmkit.sampling import from_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Neighbours:
    """Samples `[B, C, H, W]` with their k nearest `images[B, k, C, H, W]`, nearest first, all in [-1, 1].

    `similarities[B, k]` are cosines; `sources[B][k]` name the shard and the place among its usable images.
    """

    samples: Tensor
    images: Tensor
    similarities: Tensor
    sources: tuple[tuple[tuple[str, int], ...], ...]
    compared: int

    def numbers(self) -> dict[str, Any]:
        """What the picture shows, as JSON values: a list for each sample."""
        rows = [
            [
                {"cosine": cosine, "shard": shard, "place": place}
                for cosine, (shard, place) in zip(cosines, sources, strict=True)
            ]
            for cosines, sources in zip(self.similarities.tolist(), self.sources, strict=True)
        ]
        return {"images": self.compared, "neighbours": rows}


def compute(
    samples: Tensor,
    options: DataOptions,
    features: Features,
    nearest: int,
    batch_size: int = 64,
    say: Say = lambda message: None,
    done: Done = unheard,
) -> Neighbours:
    """The `nearest` images of the data for each of `samples[B, C, H, W]`; fewer where there are no more.

    The data go by in parts of at most 1,024 images: neither they nor their features are in memory at once. Samples are
    compared as they would be written to a file, within [-1, 1].
    """
    samples = samples.clamp(-1, 1)
    wanted = normalized(features, samples, batch_size)
    count = len(samples)
    cosines, images = torch.empty(count, 0), torch.empty(count, 0, *samples.shape[1:], dtype=torch.uint8)
    sources: list[list[tuple[str, int]]] = [[] for _ in range(count)]
    compared = 0
    for shard, first, part in all_parts(options, say, done):
        similar = wanted @ normalized(features, from_uint8(part), batch_size).T
        cosines, images, sources = _best(nearest, cosines, images, sources, similar, part, shard, first)
        compared += len(part)
    return Neighbours(samples, from_uint8(images), cosines, tuple(map(tuple, sources)), compared)


def _best(
    nearest: int,
    cosines: Tensor,
    images: Tensor,
    sources: list[list[tuple[str, int]]],
    similar: Tensor,
    part: Tensor,
    shard: str,
    first: int,
) -> tuple[Tensor, Tensor, list[list[tuple[str, int]]]]:
    """The best of those kept so far and of the `part` whose similarities `[B, N]` are new."""
    kept = cosines.shape[1]
    together = torch.cat([cosines, similar], dim=1)
    best = together.topk(min(nearest, together.shape[1]), dim=1)
    rows, named = [], []
    for number, places in enumerate(best.indices.tolist()):
        rows.append(torch.stack([images[number, i] if i < kept else part[i - kept] for i in places]))
        named.append([sources[number][i] if i < kept else (shard, first + i - kept) for i in places])
    return best.values, torch.stack(rows), named


def draw(found: Neighbours, title: str = "") -> Figure:
    """A row for each sample: it, then its neighbours with their cosines below."""
    count, nearest = found.similarities.shape
    _, height, width = found.samples.shape[1:]
    tile = min(0.9, 8.4 / (nearest + 1))
    figure, panels = style.figure(
        nearest + 1,
        count,
        title=title,
        width=max(4.0, (tile + 0.08) * (nearest + 1)),
        height=tile * height / width + 0.25,
    )
    for number in range(count):
        row = panels[number * (nearest + 1) : (number + 1) * (nearest + 1)]
        tiles.show(row[0], found.samples[number][None, None])
        for place, axes in enumerate(row[1:]):
            tiles.show(axes, found.images[number, place][None, None])
            axes.set_xlabel(f"{float(found.similarities[number, place]):.4f}", fontsize=style.SMALL, labelpad=2)
        for axes in row:
            axes.set_box_aspect(height / width)
        row[0].spines[:].set_visible(True)
        row[0].spines[:].set_color(style.VERMILLION)
        row[0].spines[:].set_linewidth(2)
    panels[0].set_title("sample", fontsize=style.TEXT)
    for place, axes in enumerate(panels[1 : nearest + 1]):
        axes.set_title("nearest" if place == 0 else f"{place + 1}.", fontsize=style.TEXT)
    return figure
