"""The folder in which remote shards are kept: names, and room within a limit.

`NAME.shard` is a whole shard, `NAME.part` one that is being fetched by who holds `NAME.lock`. Nothing else in the
folder is ever touched.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ebmkit.data.remote.locks import locked, release, remove_unless_read, try_lock
from ebmkit.errors import BadData

_OURS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*-[0-9a-f]{32}\.(shard|part|lock)\Z")
_WORD = re.compile(r"[^\s/'\"|;&<>?#=]+\.(?:tar|tgz)[A-Za-z0-9.]*")
_LOCK = ".ebmkit-cache.lock"


class Unkept(Exception):
    """Why a shard is not kept in the folder."""


class _Entry(NamedTuple):
    path: Path
    size: int
    used: int


@dataclass(frozen=True)
class CacheFolder:
    """A folder that any number of processes share; `limit` in bytes."""

    folder: Path
    limit: int

    @classmethod
    def prepared(cls, folder: str, limit: int) -> CacheFolder:
        """The folder, made if need be, without what killed processes left; `BadData` where it cannot be used."""
        path = Path(folder).expanduser().absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            found = cls(path, limit)
            with locked(path / _LOCK):
                found._swept()
        except OSError as error:
            raise BadData(
                f"data.cache_dir: {path} cannot be used: {error.strerror}; name a folder in which you may write"
            ) from error
        return found

    def whole(self, shard: str) -> Path:
        """Where the shard lies once it is complete."""
        return self.folder / f"{_name(shard)}.shard"

    def reserve(self, part: Path, descriptor: int, size: int) -> None:
        """Make `part` that large, on the folder's account; the shards that were used longest ago make room.

        `Unkept` where that does not do.
        """
        with locked(self.folder / _LOCK):
            entries = [entry for entry in self._swept() if entry.path != part]
            excess = sum(entry.size for entry in entries) + size - self.limit
            for entry in sorted(entries, key=lambda entry: entry.used):
                if excess <= 0 or size > self.limit:
                    break
                if entry.path.suffix == ".shard" and remove_unless_read(entry.path):
                    excess -= entry.size
            if excess > 0:
                what = "it is larger than" if size > self.limit else "shards that are in use fill"
                raise Unkept(f"{what} data.cache_dir_limit ({self.limit / 2**30:.3g} GiB)")
            os.ftruncate(descriptor, size)

    def _swept(self) -> list[_Entry]:
        """The shards and parts, after removing the parts and locks of processes that are no more."""
        found = []
        for entry in self._ours():
            lock = entry.path.with_suffix(".lock")
            if entry.path.suffix == ".shard":
                found.append(entry)
            elif (held := try_lock(lock)) is not None:
                entry.path.with_suffix(".part").unlink(missing_ok=True)
                release(lock, held)
            elif entry.path.suffix == ".part":
                found.append(entry)
        return found

    def _ours(self) -> Iterator[_Entry]:
        with os.scandir(self.folder) as names:
            for name in names:
                if _OURS.match(name.name):
                    try:
                        status = name.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISREG(status.st_mode):
                        yield _Entry(Path(name.path), status.st_size, status.st_mtime_ns)


def _name(shard: str) -> str:
    """A readable part and a hash of the whole: no two shards share a name, and none leads out of the folder."""
    words = _WORD.findall(shard)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", words[-1] if words else shard.partition(":")[0])[-80:]
    return f"{readable.lstrip('.-') or 'shard'}-{hashlib.blake2b(shard.encode(), digest_size=16).hexdigest()}"
