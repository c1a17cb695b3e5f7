"""From a picture to the encoded image that goes into a shard."""

from __future__ import annotations

import io
from typing import Any, Literal, NamedTuple, TypeAlias

from PIL import Image, ImageOps

from ebmkit.data.framing import centre_box
from ebmkit.data.pixels import to_8_bit

Format: TypeAlias = Literal["png", "jpg", "webp"]


class Framing(NamedTuple):
    """How every image is cropped, resized and encoded. `size` is `(height, width)`, None keeps it."""

    size: tuple[int, int] | None
    crop: int | None
    channels: int
    format: Format
    quality: int

    def __call__(self, picture: Image.Image) -> tuple[bytes, tuple[int, int]]:
        """The encoded image and its `(height, width)`; `CorruptImage` where it cannot be decoded."""
        image = ImageOps.exif_transpose(to_8_bit(picture, self.channels))
        height, width = image.height, image.width
        inner = (height, width) if self.crop is None else (min(self.crop, height), min(self.crop, width))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        target = self.size or inner
        down, right, height, width = centre_box(inner, target)
        top, left = top + down, left + right
        image = image.crop((left, top, left + width, top + height))
        if (image.height, image.width) != target:
            # Pillow widens the filter when it makes images smaller: this is antialiased.
            image = image.resize((target[1], target[0]), Image.Resampling.LANCZOS)
        return self._encode(image), target

    def _encode(self, image: Image.Image) -> bytes:
        # A picture without the metadata (colour profile, EXIF, date) that Pillow would write again.
        bare = Image.frombytes(image.mode, image.size, image.tobytes())
        file = io.BytesIO()
        options: dict[str, Any] = {} if self.format == "png" else {"quality": self.quality}
        bare.save(file, {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[self.format], **options)
        return file.getvalue()
