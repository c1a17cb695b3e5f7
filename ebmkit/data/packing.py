"""Telling packed files from plain ones by their first bytes. Torch-free."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

XZ_MEMORY = 2**28
"""Bytes that unpacking xz may take; its own strongest setting takes 65 MiB, and a file may ask for 4 GiB."""
_CHUNK = 1 << 16


class _XzStream(io.RawIOBase):
    """`lzma.open(..., "rb")`, with a limit of memory."""

    def __init__(self, source: Path | str | Any) -> None:
        self._owned = isinstance(source, Path | str)
        self._source: Any = Path(source).open("rb") if self._owned else source  # noqa: SIM115 - closed by `close`
        self._unpacking = lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = b""
        while not data:
            packed = b""
            if self._unpacking.eof:
                # Another stream may follow, after zeros.
                packed = (self._unpacking.unused_data or self._source.read(_CHUNK)).lstrip(b"\0")
                if not packed:
                    return 0
                self._unpacking = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            elif self._unpacking.needs_input:
                packed = self._source.read(_CHUNK)
                if not packed:
                    raise EOFError("the packed file ends too early")
            data = self._unpacking.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._owned:
            self._source.close()
        super().close()


def _open_xz(source: Path | str | Any, mode: str) -> io.BufferedReader:
    return io.BufferedReader(_XzStream(source))


_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": _open_xz}

UNPACKING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a packed file that is cut short or broken raises."""


def unpacker(head: bytes) -> Callable[..., Any] | None:
    """Opens, given a path or stream and "rb", a file that begins with these two bytes; None for a plain file."""
    return _OPENERS.get(head)
