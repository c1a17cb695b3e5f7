"""Size limits and crop geometry, shared by reading and making. Torch-free."""

from __future__ import annotations

MAX_SIDE = 16_384
MAX_PIXELS = 2**27
"""A larger image is taken for a corrupt or hostile one, before its pixels are decoded."""


class CorruptImage(Exception):
    """An image that cannot be used, and why."""


def check_bounds(width: int, height: int) -> None:
    """Refuse sizes that no training image has, so that a few bytes cannot fill the memory."""
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise CorruptImage(f"is {width}x{height}, larger than any image should be")


def centre_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest centred box of the target's aspect ratio in an image of `size`, both `(height, width)`.

    Returns `(top, left, height, width)`, whole pixels.
    """
    height, width = size
    if height * target[1] >= width * target[0]:
        box = (max(1, round(width * target[0] / target[1])), width)
    else:
        box = (height, max(1, round(height * target[1] / target[0])))
    return (height - box[0]) // 2, (width - box[1]) // 2, box[0], box[1]
