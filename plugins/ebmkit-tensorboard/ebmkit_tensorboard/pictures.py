"""What TensorBoard is given of tensors: one picture of many images, and histograms that can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.utils import make_grid

if TYPE_CHECKING:
    from torch import Tensor

MIN_TILE = 48
"""Images smaller than this many pixels are enlarged by a whole factor, so that a person can see them."""

BINS = 50
"""Bins of the energies' histograms, from the lowest to the highest energy of them all."""


def grid(images: Tensor) -> Tensor:
    """`images[N, C, H, W]` in [-1, 1] as one picture `[3, H', W']`, uint8, as square as `N` allows."""
    # uint8 here, as the writer would round down.
    tiles = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    if tiles.shape[1] not in (1, 3):
        # No picture format has these channels; the first one is shown as grey.
        tiles = tiles[:, :1]
    factor = math.ceil(MIN_TILE / min(tiles.shape[-2:]))
    tiles = tiles.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
    picture: Tensor = make_grid(tiles, nrow=math.ceil(math.sqrt(len(tiles))), padding=2, pad_value=255)
    return picture


def histograms(energies: Mapping[str, Tensor]) -> tuple[dict[str, Any], Any]:
    """The finite values of each, as arrays, and the edges of bins that hold all of them: the same bins for each."""
    # The precision of networks, in float64: there is room for the edges between any two of them.
    arrays = {name: values.float().double().numpy() for name, values in energies.items()}
    finite = {name: values[np.isfinite(values)] for name, values in arrays.items()}
    kept = {name: values for name, values in finite.items() if len(values)}
    return kept, np.histogram_bin_edges(np.concatenate([*kept.values(), []]), bins=BINS)
