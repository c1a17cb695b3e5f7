"""Small real shards whose images and labels carry their number."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ebmkit.data.images import open_images
from ebmkit.data.source import ImageSource
from ebmkit.interfaces import Context
from ebmkit.options import DataOptions

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


def picture(number: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """RGB, one colour: red and green hold the number."""
    return Image.new("RGB", (size[1], size[0]), (number % 256, number // 256, 7))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def members(numbers: Iterable[int], corrupt: Iterable[int] = ()) -> list[tuple[str, bytes]]:
    """`NNNNN.png` and `NNNNN.cls` for every number; the corrupt ones have one changed byte in their pixels."""
    broken = set(corrupt)
    found = []
    for number in numbers:
        data = bytearray(encoded(picture(number)))
        if number in broken:
            data[data.index(b"IDAT") + 8] ^= 0xFF
        found += [(f"{number:05d}.png", bytes(data)), (f"{number:05d}.cls", str(number).encode())]
    return found


def write_shards(folder: Path, sizes: list[int], corrupt: Iterable[int] = (), suffix: str = ".tar") -> list[str]:
    """One shard of each size, numbered through; returns their paths."""
    broken, begin, paths = set(corrupt), 0, []
    for place, size in enumerate(sizes):
        path = folder / f"train-{place:06d}{suffix}"
        data = tar_bytes(members(range(begin, begin + size), broken))
        path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
        paths.append(str(path))
        begin += size
    return paths


def options(shards: str | list[str], **changes: object) -> DataOptions:
    values = {"shards": tuple(shards) if isinstance(shards, list) else shards, "image_size": 8, "workers": 0}
    return DataOptions(**(values | changes))


def numbers_of(images: np.ndarray) -> list[int]:
    """The numbers that the pixels of `[B, 3, H, W]` images carry."""
    return [int(image[0, 0, 0]) + 256 * int(image[1, 0, 0]) for image in images]


def context(rank: int = 0, world_size: int = 1, seed: int = 3) -> Context:
    return Context((3, 8, 8), 10, "cpu", rank, world_size, seed)


@contextmanager
def stream(
    shards: Any,
    batch_size: int = 1,
    at: Context | None = None,
    state: dict[str, Any] | None = None,
    told: list[str] | None = None,
    **changes: Any,
) -> Iterator[ImageSource]:
    chosen = options(shards, cache="off", **({"shuffle": 7} | changes))
    warn = (told if told is not None else []).append
    with open_images(chosen, at or context(), batch_size, state, warn) as source:
        yield source


def take(source: ImageSource, batches: int) -> list[int]:
    """The labels of so many batches; the pixels must agree with them."""
    labels: list[int] = []
    for _ in range(batches):
        batch = source.next()
        assert batch.images.dtype == torch.uint8
        assert batch.labels.dtype == torch.int64
        assert numbers_of(batch.images.numpy()) == batch.labels.tolist()
        labels += batch.labels.tolist()
    return labels
