"""Images in a zip or tar file. Members are read into memory; their names are never used as paths."""

from __future__ import annotations

import os
import tempfile
import zipfile
from abc import abstractmethod
from pathlib import Path
from typing import BinaryIO

from ebmkit.data.framing import CorruptImage
from ebmkit.data.making.sources import Loaded, NamedFiles, Source
from ebmkit.data.members import MAX_FILE, TAR_ERRORS, files_of, open_tar
from ebmkit.data.packing import UNPACKING_ERRORS, unpacker
from ebmkit.data.pixels import open_picture
from ebmkit.errors import BadInput

UNPACKED_LEAST, UNPACKED_TIMES = 2**28, 100
"""Bytes that a packed archive may always unpack to, and how many times its size."""


def open_archive(path: Path) -> ArchiveSource | None:
    """The images in this file; None where it is no archive."""
    if zipfile.is_zipfile(path):
        return ZipSource(path)
    return TarSource(path) if _is_tar(path) else None


def _is_tar(path: Path) -> bool:
    # Not tarfile.is_tarfile: it reads as much as the first header likes.
    try:
        with path.open("rb") as file:
            unpack = unpacker(file.read(2)) or Path.open
        with unpack(path, "rb") as plain, open_tar(plain, "r|"):
            return True
    except (*TAR_ERRORS, *UNPACKING_ERRORS):
        return False


class ArchiveSource(Source):
    """Every image in an archive; the first folder on its path is its class."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            names = self._index()
        except (*UNPACKING_ERRORS, *TAR_ERRORS, zipfile.BadZipFile, NotImplementedError) as error:
            raise BadInput(f"{path} cannot be read ({error}); is the file complete?") from error
        self._files = NamedFiles(names)
        self.classes = self._files.classes
        if not self._files.names:
            raise BadInput(f"{path} holds no image files")

    @abstractmethod
    def _index(self) -> list[str]:
        """The names of all members."""

    @abstractmethod
    def _read(self, member: int) -> bytes:
        """The content of a member, by its place in the index; at most one byte more than `MAX_FILE`."""

    def __len__(self) -> int:
        return len(self._files.names)

    def name(self, index: int) -> str:
        """Its name in the archive."""
        return self._files.names[index]

    def load(self, index: int) -> Loaded:
        """Read the member."""
        try:
            data = self._read(self._files.order[index])
        # RuntimeError: a password is needed; NotImplementedError: an unknown compression.
        except (*UNPACKING_ERRORS, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise CorruptImage(f"cannot be read ({error})") from error
        if len(data) > MAX_FILE:
            raise CorruptImage("is larger than any image file should be")
        return Loaded(open_picture(data), self._files.labels[index])


class ZipSource(ArchiveSource):
    """Images in a zip file."""

    _zip: zipfile.ZipFile | None = None

    def _index(self) -> list[str]:
        with zipfile.ZipFile(self._path) as archive:
            self._members = [member for member in archive.infolist() if not member.is_dir()]
        return [member.filename for member in self._members]

    def _read(self, member: int) -> bytes:
        if self._zip is None:
            self._zip = zipfile.ZipFile(self._path)
        with self._zip.open(self._members[member]) as file:
            return file.read(MAX_FILE + 1)

    def close(self) -> None:
        """Close the file."""
        if self._zip is not None:
            self._zip.close()
            self._zip = None


class TarSource(ArchiveSource):
    """Images in a tar file. A packed one is unpacked as a whole to a temporary file, for access in any order."""

    _file: BinaryIO | None = None
    _temporary: Path | None = None

    def _index(self) -> list[str]:
        with self._path.open("rb") as file:
            unpack = unpacker(file.read(2))
        if unpack is not None:
            handle, name = tempfile.mkstemp(prefix="ebmkit-", suffix=".tar")
            self._temporary = Path(name)
            try:
                with unpack(self._path, "rb") as packed, os.fdopen(handle, "wb") as plain:
                    self._unpack(packed, plain)
            except BaseException:
                self.close()
                raise
        with (self._temporary or self._path).open("rb") as file, open_tar(file, "r:") as archive:
            found = [(member.name, member.offset_data, member.size) for member in files_of(archive)]
        self._places = [(begin, size) for _, begin, size in found]
        return [name for name, _, _ in found]

    def _unpack(self, packed: BinaryIO, plain: BinaryIO) -> None:
        most = max(UNPACKED_LEAST, UNPACKED_TIMES * self._path.stat().st_size)
        while data := packed.read(1 << 20):
            most -= len(data)
            if most < 0:
                raise OSError(f"unpacked it is more than {UNPACKED_TIMES} times as large, as no images are")
            plain.write(data)

    def _read(self, member: int) -> bytes:
        if self._file is None:
            self._file = (self._temporary or self._path).open("rb")
        begin, size = self._places[member]
        self._file.seek(begin)
        return self._file.read(min(size, MAX_FILE + 1))

    def close(self) -> None:
        """Close the file, and delete the temporary one."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None
