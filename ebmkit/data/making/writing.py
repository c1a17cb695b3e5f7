"""Writing shards so that an interrupted run leaves nothing that looks like a complete set."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

from ebmkit.data.manifest import MANIFEST, Manifest, Shard
from ebmkit.errors import BadInput
from ebmkit.files import sync_folder


class ShardWriter:
    """Writes `PREFIX-000000.tar` and so on, the same bytes for the same samples.

    All shards stay hidden and `.partial` until `finish`, which renames them and then writes the manifest.
    """

    def __init__(self, folder: Path, prefix: str, shard_size: int) -> None:
        self._folder, self._prefix, self._shard_size = folder, prefix, shard_size
        self._tar: tarfile.TarFile | None = None
        self._in_shard = 0
        self.shards: list[Shard] = []
        self.count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._refuse_overwriting()
            for stale in folder.glob(f".{prefix}-*.tar.partial"):
                stale.unlink()
        except OSError as error:
            raise BadInput(f"cannot write shards to {folder}: {error.strerror}") from error

    def add(self, image: bytes, kind: str, label: int | None) -> None:
        """Append a sample; its key is its number."""
        if self._tar is None:
            path = self._partial(len(self.shards))
            self._tar = tarfile.open(path, "x", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (closed in _end_shard)
        self._member(self._tar, f"{self.count:09d}.{kind}", image)
        if label is not None:
            self._member(self._tar, f"{self.count:09d}.cls", str(label).encode())
        self.count += 1
        self._in_shard += 1
        if self._in_shard == self._shard_size:
            self._end_shard()

    def finish(self) -> None:
        """Give all shards their names."""
        self._end_shard()
        for number, shard in enumerate(self.shards):
            self._partial(number).rename(self._folder / shard.name)
        sync_folder(self._folder)

    def write_manifest(self, manifest: Manifest) -> None:
        """The last thing to be written: with it the set is complete."""
        partial = self._folder / f".{MANIFEST}.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(manifest.to_json())
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._folder / MANIFEST)
        sync_folder(self._folder)

    def abandon(self) -> None:
        """Delete what is not finished."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None
        for partial in self._folder.glob(f".{self._prefix}-*.tar.partial"):
            partial.unlink()

    def _name(self, number: int) -> str:
        return f"{self._prefix}-{number:06d}.tar"

    def _partial(self, number: int) -> Path:
        return self._folder / f".{self._name(number)}.partial"

    def _member(self, tar: tarfile.TarFile, name: str, data: bytes) -> None:
        # A fresh TarInfo has no date, no owner and fixed permissions.
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))

    def _end_shard(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        self._tar = None
        path = self._partial(len(self.shards))
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        self.shards.append(Shard(self._name(len(self.shards)), self._in_shard, path.stat().st_size, checksum))
        self._in_shard = 0

    def _refuse_overwriting(self) -> None:
        if (self._folder / MANIFEST).exists():
            raise BadInput(f"{self._folder} already has a {MANIFEST}; choose another folder, or delete this one first")
        present = sorted(path.name for path in self._folder.glob("[!.]*.tar*"))
        if present:
            raise BadInput(
                f"{self._folder} already has shards ({present[0]}); choose another folder, or delete them first"
            )
