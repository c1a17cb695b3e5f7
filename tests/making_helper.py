"""Sources for shards, and a look into the shards made."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from shards_helper import encoded, picture


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def samples(folder: Path) -> list[tuple[str, bytes]]:
    """All members of all shards, in order."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    return found


def image(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def archive_of_noise(folder: Path, count: int = 5, side: int = 32) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    path = folder / "noise.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for number, pixels in enumerate(noise):
            data = encoded(Image.fromarray(pixels))
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def image_folder(tmp_path: Path) -> Path:
    """Two classes, nested deeper, several formats and sizes, and files that are no images."""
    source = tmp_path / "source"
    for number in range(90):
        place = source / ("cat" if number % 3 else "dog") / ("deep" if number % 2 else ".")
        place.mkdir(parents=True, exist_ok=True)
        kind = ["png", "bmp", "webp"][number % 3]
        picture(number, (20 + number % 5, 30)).save(place / f"{number:03d}.{kind}", lossless=True)
    (source / "notes.txt").write_text("no image")
    (source / ".hidden.png").write_bytes(b"")
    (source / "cat" / "broken.png").write_bytes(encoded(picture(1))[:40])
    (source / "dog" / "text.jpg").write_text("not a picture")
    return source
