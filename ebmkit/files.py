"""Writing files so that a reader, or a crash at any moment, finds the old one or the whole new one."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ebmkit.errors import BadInput

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a full disk, and one on which the user may have no more, answer."""
_TEMPORARY = re.compile(r"\..+-[0-9a-f]{8}(\.\w+)?\Z")


def reason(error: OSError, folder: Path) -> str:
    """Why something could not be written into `folder`, for people: also how full its disk is, if it is full."""
    why = error.strerror or str(error) or type(error).__name__
    if error.errno in FULL:
        with suppress(OSError):
            found = shutil.disk_usage(folder)
            why += f" ({found.free / 1e6:,.1f} MB of {found.total / 1e6:,.0f} MB free on the disk of {folder})"
    return why


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Make a `BadInput` that names `path` of an error of writing it: for what comes before training begins."""
    try:
        yield
    except OSError as error:
        folder = next(found for found in (path, *path.absolute().parents) if found.is_dir())
        raise BadInput(f"{path}: cannot be written: {reason(error, folder)}") from error


def sync_folder(folder: Path) -> None:
    """Make renames within a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's content survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file of the same name in a temporary folder, sync it and rename it to `path`.

    A folder, because some libraries write a temporary file of their own beside what they were asked for.
    """
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir()
        file = temporary / path.name
        write(file)
        # Some libraries create files for their owner only; these are ordinary files, as the umask has it.
        file.chmod(0o666 & ~_umask())
        sync_file(file)
        os.replace(file, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(path.parent)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, which gets that name when all of it is written; an empty one gives way.

    Raises `OSError` where something else has that name by then.
    """
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            sync_file(file)
        sync_folder(temporary)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(path.parent)


def is_temporary(name: str) -> bool:
    """Whether `write_atomically` and `folder_written_whole` give such names to what they have not finished."""
    return _TEMPORARY.match(name) is not None


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
