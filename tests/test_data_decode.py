"""Decoding: formats, conversions, sizes, and files that are broken."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ebmkit.data.decode import Decoder, WrongSize
from ebmkit.data.framing import CorruptImage
from shards_helper import encoded

RGB = Decoder((3, 16, 16), "refuse")
GREY = Decoder((1, 16, 16), "refuse")


def colours() -> np.ndarray:
    """Smooth, so that lossy formats stay close; the channels differ."""
    y, x = np.mgrid[0:16, 0:16]
    return np.stack([x * 16, y * 16, 255 - x * 8 - y * 8], -1).astype(np.uint8)


COLOURS = torch.from_numpy(colours()).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [("PNG", {}, 0), ("JPEG", {"quality": 95, "subsampling": 0}, 6), ("WEBP", {"lossless": True}, 0), ("BMP", {}, 0)],
)
def test_formats(kind: str, options: dict[str, object], tolerance: int) -> None:
    image = RGB(encoded(Image.fromarray(colours()), kind, **options))
    assert image.dtype == torch.uint8
    assert (image.int() - COLOURS.int()).abs().max() <= tolerance


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("#ff0000", "#0000ff")]
    image = RGB(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert image[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_colour_becomes_grey_and_grey_becomes_colour(kind: str) -> None:
    lossy = {} if kind == "PNG" else {"quality": 95}
    luma = (colours() @ np.array([0.299, 0.587, 0.114])).round()
    grey = GREY(encoded(Image.fromarray(colours()), kind, **lossy))
    assert grey.shape == (1, 16, 16)
    assert np.abs(grey[0].numpy() - luma).max() <= (1 if kind == "PNG" else 12)
    spread = RGB(encoded(Image.fromarray(colours()[:, :, 0]), kind, **lossy))
    assert (spread.int() - COLOURS[:1].int()).abs().max() <= (0 if kind == "PNG" else 6)


def test_16_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    image = GREY(encoded(Image.fromarray(values), "PNG"))
    assert torch.equal(image[0], torch.arange(256, dtype=torch.uint8).reshape(16, 16))


def test_alpha_is_dropped_and_palettes_are_looked_up() -> None:
    transparent = np.concatenate([colours(), np.full((16, 16, 1), 9, np.uint8)], -1)
    assert torch.equal(RGB(encoded(Image.fromarray(transparent), "PNG")), COLOURS)
    few = Image.fromarray(colours() // 64 * 64).quantize(64)
    want = torch.from_numpy(np.array(few.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(RGB(encoded(few, "PNG", transparency=bytes([0, 128]))), want)


def test_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(WrongSize) as caught:
        RGB(encoded(Image.new("RGB", (16, 17)), "PNG"))
    assert caught.value.size == (17, 16)


def test_resizing_is_antialiased_and_does_not_squeeze() -> None:
    # Columns of single black and white pixels: without antialiasing every other one would be picked.
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    stripes[:, :16] = stripes[:, 80:] = 0
    decoder = Decoder((3, 16, 16), "resize")
    image = decoder(encoded(Image.fromarray(stripes), "PNG"))
    assert image.shape == (3, 16, 16)
    assert (image.float() - 127.5).abs().max() < 10, "stripes average out, and the black margins are cut off"
    assert decoder(encoded(Image.new("RGB", (3, 2), "#102030"), "PNG"))[:, 5, 5].tolist() == [16, 32, 48]


def huge_png() -> bytes:
    """A PNG header that announces 30,000 x 30,000 pixels, and nothing behind it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("decoder", [RGB, Decoder((3, 16, 16), "resize")])
@pytest.mark.parametrize(
    "data", [b"", b"not an image", huge_png(), encoded(Image.fromarray(colours()), "PNG")[:-40]], ids=range(4)
)
def test_what_is_no_image(decoder: Decoder, data: bytes) -> None:
    with pytest.raises(CorruptImage):
        decoder(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_broken_files_never_end_the_process(kind: str) -> None:
    """torchvision's PNG decoder does, by a segmentation fault; this is why Pillow decodes PNG here."""
    whole, choose = encoded(Image.fromarray(colours()), kind), random.Random(0)
    decoder, refused = Decoder((3, 16, 16), "resize"), 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(choose.choice([1, 3, 10])):
            data[choose.randrange(len(data))] = choose.randrange(256)
        if choose.random() < 0.3:
            del data[choose.randrange(1, len(data)) :]
        try:
            assert decoder(bytes(data)).shape == (3, 16, 16)
        except CorruptImage:
            refused += 1
    assert refused > 50
