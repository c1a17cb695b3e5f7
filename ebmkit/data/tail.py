"""A stream that unpacks itself and knows whether it came to a proper end."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Protocol

from ebmkit.data.packing import UNPACKING_ERRORS, unpacker
from ebmkit.data.remote.access import CHANGED
from ebmkit.errors import DataError

_CHUNK = 1 << 16


class Readable(Protocol):
    """The bytes of a shard as they are stored."""

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes, fewer only at the end."""

    def close(self) -> None:
        """Give up what is open. May be called twice."""


class Tail:
    """The unpacked bytes of a shard's `stream`, checksum included.

    Errors are kept, not raised: what came before them is still good.

    Where the end is not that of a tar file, `again` is asked to start `stream` over; True says that it did.
    """

    trouble: Exception | None = None
    """Why reading stopped early."""
    failure: DataError | None = None
    """Why no more could be had, although there is more."""

    def __init__(self, shard: str, stream: Readable, again: Callable[[], bool] = lambda: False) -> None:
        self._shard = shard
        self._stream = stream
        self._again = again
        self._last = b""
        self._given = self._checksum = 0
        self._read: Callable[[int], bytes] | None = None

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end and after an error."""
        if self.trouble is not None or self.failure is not None:
            return b""
        data = self._once(size)
        while not data and not self.ended and self.failure is None and self._restarted():
            data = self._once(size)
        self._given += len(data)
        self._checksum = zlib.crc32(data, self._checksum)
        return data

    def drain(self) -> None:
        """Read what is left, so that the checks at the very end are made."""
        while self.read(_CHUNK):
            pass

    @property
    def ended(self) -> bool:
        """Whether the last block read is one of the zeros that end every complete tar file, and nothing is broken."""
        return self._last == bytes(512) and self.trouble is None

    def _once(self, size: int) -> bytes:
        try:
            if self._read is None:
                prefixed = _Prefixed(self._stream)
                if len(prefixed.head) < 2:
                    # Too little to tell packed from plain, and to be a shard.
                    return b""
                unpack = unpacker(prefixed.head)
                # `read1` does not read on for more than it already has: it returns all there is before an error.
                self._read = unpack(prefixed, "rb").read1 if unpack else prefixed.read
            data = self._read(size)
        except DataError as error:
            self.failure = error
            return b""
        except UNPACKING_ERRORS as error:
            self.trouble = error
            return b""
        self._last = (self._last + data)[-512:] if len(data) < 512 else data[-512:]
        return data

    def _restarted(self) -> bool:
        """Whether the stream began anew and was read up to where it ended."""
        try:
            if not self._again():
                return False
        except DataError as error:
            self.failure = error
            return False
        self.trouble, self._read, self._last = None, None, b""
        missing, checksum = self._given, 0
        while missing and (data := self._once(min(missing, _CHUNK))):
            checksum = zlib.crc32(data, checksum)
            missing -= len(data)
        if self.failure is None and not missing and checksum != self._checksum:
            self.failure = DataError(f"shard {self._shard} cannot be read: its content changed meanwhile; {CHANGED}")
        return self.failure is None


class _Prefixed:
    """Gives back the two bytes that were read to tell packed from plain tar."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.head = self._rest = stream.read(2)

    def read(self, size: int = -1, /) -> bytes:
        if not self._rest:
            return self._stream.read(size)
        wanted = len(self._rest) if size < 0 else size
        data, self._rest = self._rest[:wanted], self._rest[wanted:]
        return data + self._stream.read() if size < 0 else data
