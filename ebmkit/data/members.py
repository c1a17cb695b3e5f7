"""The members of a tar file of any origin: names that mean nothing to the system, and bounded memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any

MAX_FILE = 2**28
"""Bytes of an encoded image; what is larger is not read."""
MAX_NAME = 4096
"""Characters of a name; regular expressions take long over longer ones."""
_MAX_EXTENSION = 2**13
"""Bytes of a long name or a pax header. tarfile reads them whole, and needs time in proportion to their square."""
_CHUNK = 1 << 16
_MOST_GLOBALS = 1000
"""Entries of global pax headers, which tarfile copies for each member."""
_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE
)  # fmt: skip

TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, LookupError, OverflowError, RecursionError)
"""What tarfile raises on broken files."""


class _Header(tarfile.TarInfo):
    """A header; `ReadError` for those for which tarfile would take as much memory as they like."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENSIONS and not 0 <= found.size <= _MAX_EXTENSION:
            raise tarfile.ReadError(f"a name or header of {found.size:,} bytes")
        if found.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a file with holes")
        return found

    def _proc_gnusparse_10(self, *arguments: Any) -> None:
        """Its map lies in the file's data, as long as it likes, and tarfile reads it before anybody can look."""
        raise tarfile.ReadError("a file with holes")


def open_tar(stream: Any, mode: str) -> tarfile.TarFile:
    """A plain tar file, "r:" or "r|" as `tarfile.open` has it, with bounded headers; raises one of `TAR_ERRORS`."""
    return tarfile.open(fileobj=stream, mode=mode, tarinfo=_Header)  # type: ignore[call-overload, no-any-return]


def files_of(tar: tarfile.TarFile, streamed: bool = False) -> Iterator[tarfile.TarInfo]:
    """Its ordinary files in their order, no links, devices or folders; raises one of `TAR_ERRORS`."""
    while (member := tar.next()) is not None:
        # tarfile would keep them all.
        tar.members = []  # type: ignore[attr-defined]
        if len(tar.pax_headers) > _MOST_GLOBALS:
            raise tarfile.ReadError("endless headers")
        if member.size < 0:
            raise tarfile.ReadError(f"a file of {member.size} bytes")
        if member.isreg() and not member.issparse():
            yield member
        if streamed:
            _read_on(tar)


def _read_on(tar: tarfile.TarFile) -> None:
    """Go on in a stream to the next header; raises `ReadError` where it ends before.

    tarfile would go on in vain for as many bytes as a header declares.
    """
    stream: Any = tar.fileobj
    while (left := tar.offset - stream.tell()) > 0:
        if not stream.read(min(left, _CHUNK)):
            raise tarfile.ReadError("unexpected end of data")
