"""From the encoded bytes of one sample to pixels of the recipe's shape."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from ebmkit.data.framing import centre_box
from ebmkit.data.pixels import open_picture, to_8_bit


class WrongSize(Exception):
    """An image of another size than the recipe's, where that is refused. Carries its `(height, width)`."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size)
        self.size = size


class Decoder(NamedTuple):
    """How to make images of `shape` `(C, H, W)` from encoded ones."""

    shape: tuple[int, int, int]
    wrong_size: Literal["resize", "refuse"]

    def __call__(self, data: bytes) -> Tensor:
        """Pixels `[C, H, W]`, uint8. `CorruptImage` and `WrongSize` say what is wrong with an image."""
        channels, height, width = self.shape
        picture = open_picture(data)
        size = (picture.height, picture.width)
        if size != (height, width) and self.wrong_size == "refuse":
            raise WrongSize(size)
        # Not by torchvision, though it is faster: its decoders are deprecated since 0.29, and that for PNG ends the
        # process (SIGSEGV) on a file with one changed byte.
        pixels = np.array(to_8_bit(picture, channels))
        image = torch.from_numpy(pixels.reshape(*size, channels)).permute(2, 0, 1)
        return image if size == (height, width) else _resize(image, (height, width))


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest centred part of the right aspect ratio, antialiased to `size`, so that nothing is squeezed."""
    top, left, height, width = centre_box((image.shape[1], image.shape[2]), size)
    part = image[:, top : top + height, left : left + width]
    resized: Tensor = functional.resize(part, list(size), antialias=True)
    return resized
