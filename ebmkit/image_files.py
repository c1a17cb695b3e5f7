"""The forms in which samples are written: a grid, a folder of PNGs, an .npz array, a safetensors file."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ebmkit.errors import BadInput
from ebmkit.files import sync_folder, write_atomically
from ebmkit.pictures import save_grid
from ebmkit.sampling import to_uint8
from ebmkit.state_file import write_tensors

Write = Callable[[Tensor], None]
"""Takes the next images, `[B, C, H, W]` float in [-1, 1]."""

KEY = "images"
"""The name of the array in .npz and .safetensors files."""


@contextmanager
def open_output(path: Path, count: int) -> Iterator[Write]:
    """A place for `count` images, in the form that `path`'s ending names; complete, or not there at all.

    Raises `BadInput` for an ending that is none of ours and for anything that would be overwritten.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise BadInput(f"{path}: already exists and is not overwritten; choose another --out")
    if path.suffix.lower() in _FILES and path.is_dir():
        raise BadInput(f"{path}: is a folder, and its name ends like a file's; choose another --out")
    if path.suffix.lower() in _FILES:
        collected: list[Tensor] = []
        _make_folder(path.parent)
        yield collected.append
        save = _FILES[path.suffix.lower()]
        save(path, torch.cat(collected))
    elif path.suffix and not path.is_dir():
        known = ", ".join(_FILES)
        raise BadInput(f"{path}: unknown form '{path.suffix}'; use {known}, or a folder's name for single PNG files")
    else:
        yield from _folder(path, count)


def _folder(path: Path, count: int) -> Iterator[Write]:
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    _make_folder(temporary)
    digits, written = max(6, len(str(count - 1))), 0

    def write(images: Tensor) -> None:
        nonlocal written
        for array in _arrays(images):
            picture = array[..., 0] if array.shape[-1] != 3 else array
            Image.fromarray(picture).save(temporary / f"{written:0{digits}d}.png")
            written += 1

    try:
        yield write
        if path.is_dir():
            path.rmdir()
        os.rename(temporary, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot be made: {error.strerror}") from error


def _arrays(images: Tensor) -> np.ndarray:
    array: np.ndarray = to_uint8(images).permute(0, 2, 3, 1).contiguous().numpy()
    return array


def _save_npz(path: Path, images: Tensor) -> None:
    array = _arrays(images)
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, images=array))


def _save_safetensors(path: Path, images: Tensor) -> None:
    write_tensors(path, {KEY: images.contiguous()})


_FILES: dict[str, Callable[[Path, Tensor], None]] = {
    ".png": save_grid,
    ".npz": _save_npz,
    ".safetensors": _save_safetensors,
}
