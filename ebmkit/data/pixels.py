"""From any picture that Pillow can read to 8-bit grey or RGB. Torch-free."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from ebmkit.data.framing import CorruptImage, check_bounds

_ROWS = 64
MODES = {1: "L", 3: "RGB"}
"""Pillow's mode for each number of channels."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
"""What is decoded. Pillow knows more, and starts Ghostscript for one of them."""

_UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, MemoryError, LookupError, TypeError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's decoders raise on broken files."""


def open_picture(data: bytes) -> Image.Image:
    """Read the header only; `CorruptImage` where there is no picture, or one of an absurd size."""
    try:
        with warnings.catch_warnings(action="ignore"):
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except _UNREADABLE as error:
        raise CorruptImage(_reason(error)) from error
    check_bounds(*picture.size)
    return picture


def to_8_bit(picture: Image.Image, channels: int) -> Image.Image:
    """Decode and convert to mode L or RGB; alpha is dropped, 16 bits become 8, of an animation the first frame."""
    try:
        with warnings.catch_warnings(action="ignore"):
            picture.load()
        # Alpha is dropped, also that of palettes, about which Pillow would warn.
        picture.info.pop("transparency", None)
        if picture.mode.startswith("I"):
            # Pillow's own conversion clips 16-bit values at 255 instead of scaling them.
            picture = Image.fromarray(_from_16_bit(np.asarray(picture)))
        if picture.mode == "F" and not np.isfinite(np.asarray(picture)).all():
            raise CorruptImage("holds values that are not finite")
        return picture if picture.mode == MODES[channels] else picture.convert(MODES[channels])
    except _UNREADABLE as error:
        raise CorruptImage(_reason(error)) from error


def _from_16_bit(values: np.ndarray) -> np.ndarray:
    """uint8 of whole numbers `[H, W]`; a few rows at a time, because the steps between take eight bytes for each."""
    result = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):
        part = values[top : top + _ROWS].astype(np.int64).clip(0, 65535)
        result[top : top + _ROWS] = (part * 255 + 32767) // 65535
    return result


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture in a known format"
    return f"cannot be decoded ({error})" if str(error) else f"cannot be decoded ({type(error).__name__})"
