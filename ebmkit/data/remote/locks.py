"""Locks between processes. The system gives them back when their process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SAFE = os.O_CLOEXEC | os.O_NOFOLLOW
"""Not left to commands, and not led elsewhere by a symbolic link that someone put there."""


def try_lock(path: Path) -> int | None:
    """Lock by a file that is made for it; a descriptor for `release`, None while another holder has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | SAFE, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        # The last holder may have removed the file between the two calls: that lock would be worth nothing.
        if is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def release(path: Path, descriptor: int) -> None:
    """Remove the lock's file, then give it up."""
    with suppress(OSError):
        path.unlink()
    os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for a moment, after waiting for it; its file stays."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | SAFE, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_for_reading(path: Path) -> int | None:
    """A descriptor whose file nobody evicts before it is closed; None where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | SAFE)
    except FileNotFoundError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def remove_unless_read(path: Path) -> bool:
    """Whether the file was removed: not while a process reads it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | SAFE)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)
