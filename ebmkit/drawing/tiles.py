"""Images side by side in rows and columns, with labels at the margins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ebmkit.drawing import style
from ebmkit.pictures import MIN_TILE
from ebmkit.sampling import to_uint8

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.04
"""White between two images, as a share of their height."""
MOST_LABELS = 14
"""Labels that have room beside each other."""


def mosaic(images: Tensor) -> np.ndarray:
    """`images[R, C, channels, H, W]` in [-1, 1] as one RGB picture, uint8 `[height, width, 3]`, white between them."""
    pixels = to_uint8(images).cpu()
    if pixels.shape[2] not in (1, 3):
        # No picture has these channels; the first one is shown as grey.
        pixels = pixels[:, :, :1]
    pixels = pixels.expand(-1, -1, 3, -1, -1)
    factor = -(-MIN_TILE // min(pixels.shape[-2:]))
    pixels = pixels.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
    gap = gap_of(pixels.shape[-2])
    padded = torch.nn.functional.pad(pixels, (0, gap, 0, gap), value=255)
    rows, columns, _, height, width = padded.shape
    whole = padded.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    return whole[:-gap, :-gap].numpy()


def gap_of(height: int) -> int:
    """Pixels between images of this height."""
    return max(1, round(GAP * height))


def show(axes: Axes, images: Tensor, columns: Sequence[str] = (), rows: Sequence[str] = ()) -> Any:
    """Draw `images[R, C, channels, H, W]` in [-1, 1] into a panel, each row and column labelled; returns the artist."""
    picture = mosaic(images)
    drawn = axes.imshow(picture, interpolation="nearest")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=style.SMALL, labeltop=True, labelbottom=False)
    axes.set_xticks(*thinned(_centres(images.shape[1], picture.shape[1]) if columns else [], columns))
    axes.set_yticks(_centres(images.shape[0], picture.shape[0]) if rows else [], list(rows))
    return drawn


def thinned(places: Sequence[float], labels: Sequence[str]) -> tuple[list[float], list[str]]:
    """Ticks with labels, every n-th if they were too many to be read beside each other; the last one stays."""
    every = max(1, -(-len(labels) // MOST_LABELS))
    first = (len(labels) - 1) % every
    return list(places[first::every]), list(labels[first::every])


def _centres(count: int, length: int) -> list[float]:
    return [(i + 0.5) * length / count - 0.5 for i in range(count)]


def size(rows: int, columns: int, shape: tuple[int, int, int], widest: float = 9.0) -> tuple[float, float]:
    """(width, height) in inches for so many images of `shape` `(C, H, W)`: no wider than a page."""
    _, height, width = shape
    tile = min(0.8, widest / columns)
    return max(4.0, tile * columns + 0.8), tile * rows * height / width + 0.3
