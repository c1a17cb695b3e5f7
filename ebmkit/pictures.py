"""Sample grids."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import make_grid

from ebmkit.files import write_atomically
from ebmkit.sampling import to_uint8

MIN_TILE = 48
"""Images smaller than this many pixels are enlarged by a whole factor, so that a person can see them."""


def save_grid(path: Path, x: Tensor, columns: int | None = None) -> None:
    """Write images `x[B, C, H, W]` in [-1, 1] as one PNG, row by row; as square as `B` allows unless told `columns`."""
    from PIL import Image

    images = to_uint8(x).cpu()
    if images.shape[1] not in (1, 3):
        # No picture format has these channels; the first one is shown as grey.
        images = images[:, :1]
    factor = max(1, math.ceil(MIN_TILE / min(images.shape[-2:])))
    images = images.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
    grid = make_grid(images, nrow=columns or math.ceil(math.sqrt(len(images))), padding=2, pad_value=255)
    array = grid.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    write_atomically(path, lambda temporary: Image.fromarray(array).save(temporary, format="PNG"))
