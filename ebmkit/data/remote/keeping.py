"""Fetching a remote shard into the cache folder, once for all processes that want it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from ebmkit.data.remote.folder import CacheFolder, Unkept
from ebmkit.data.remote.locks import SAFE, open_for_reading, release, try_lock
from ebmkit.data.remote.retrying import RemoteBytes
from ebmkit.data.tail import Tail
from ebmkit.files import sync_folder

_CHUNK = 2**20
_PAUSE = 0.05


def kept(shard: str, folder: CacheFolder, patience: float, fetch: Callable[[], RemoteBytes]) -> BinaryIO:
    """The shard as a file of the folder, fetched if it is not there; `Unkept` where that cannot be.

    While another process fetches it, wait, unless its part does not grow for `patience` seconds.
    """
    whole = folder.whole(shard)
    lock, part = whole.with_suffix(".lock"), whole.with_suffix(".part")
    seen, since = 0, time.monotonic()
    try:
        while True:
            if (descriptor := _touched(whole)) is not None:
                return os.fdopen(descriptor, "rb")
            if (held := try_lock(lock)) is not None:
                try:
                    # It may have come between the two looks.
                    descriptor = _touched(whole)
                    if descriptor is None:
                        descriptor = _fetched(shard, folder, part, whole, fetch)
                    return os.fdopen(descriptor, "rb")
                finally:
                    release(lock, held)
            if (changed := _changed(part)) != seen:
                seen, since = changed, time.monotonic()
            elif time.monotonic() - since > patience:
                raise Unkept("another process has been fetching it without progress")
            time.sleep(_PAUSE)
    except OSError as error:
        raise Unkept(f"{folder.folder}: {error.strerror}") from error


def _fetched(shard: str, folder: CacheFolder, part: Path, whole: Path, fetch: Callable[[], RemoteBytes]) -> int:
    """Fetch into `part`, make it `whole`; a descriptor for reading it."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | SAFE, 0o666)
    try:
        with closing(fetch()) as source:
            _copy(source, folder, part, descriptor)
            while not (source.vouched or _complete(shard, descriptor)) and source.again():
                os.ftruncate(descriptor, 0)
                _copy(source, folder, part, descriptor)
        os.fsync(descriptor)
        # Held from before it has its name, so that no other process evicts it before it was read.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.replace(part, whole)
        sync_folder(whole.parent)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        part.unlink(missing_ok=True)
        raise
    return descriptor


def _copy(source: RemoteBytes, folder: CacheFolder, part: Path, descriptor: int) -> None:
    """All bytes of the shard; room is made for the whole where its size is known, and else as they come."""
    position = reserved = 0
    source.connect()
    if source.length is not None:
        reserved = source.length
        folder.reserve(part, descriptor, reserved)
    while data := source.read(_CHUNK):
        if position + len(data) > reserved:
            reserved = position + len(data)
            folder.reserve(part, descriptor, reserved)
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, position)
            position, view = position + written, view[written:]


def _complete(shard: str, descriptor: int) -> bool:
    """Whether what was fetched ends as a tar file does."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        tail = Tail(shard, file)
        tail.drain()
        return tail.ended


def _touched(whole: Path) -> int | None:
    """The shard's descriptor, marked as used now; None where it is not there."""
    descriptor = open_for_reading(whole)
    if descriptor is not None:
        try:
            os.utime(descriptor)
        except PermissionError:
            # Another user's; it is then older than it should be, no more.
            return descriptor
    return descriptor


def _changed(part: Path) -> int:
    try:
        return part.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
