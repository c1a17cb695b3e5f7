"""The bytes of a remote shard, each once and in order, over as many attempts as it takes."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable
from typing import TypeVar

from ebmkit.data.remote.access import CHANGED, Access, Attempt, Lasting, Passing
from ebmkit.data.remote.command import CommandAttempt
from ebmkit.data.remote.http import HttpAttempt
from ebmkit.data.schemes import scheme
from ebmkit.errors import BadData, DataError

LONGEST_DELAY = 60.0
LONGEST_WAIT = 300.0
"""Of what a server may ask for by Retry-After."""
PROGRESS = 2**20
"""After so many bytes a failure counts as the first again: a long shard may meet many short ones."""
_CHUNK = 1 << 16

T = TypeVar("T")


class RemoteBytes:
    """A readable stream. A retry goes on at the next byte: by a Range request, or by reading up to it again.

    Bytes that are read again are compared with the first ones by their checksum. `tell` gets a sentence for each retry.
    """

    def __init__(self, shard: str, access: Access, tell: Callable[[str], None]) -> None:
        self._shard = shard
        self._access = access
        self._tell = tell
        # Seeded by the system: workers that failed together should not come back together.
        self._jitter = random.Random()
        self._attempt: Attempt | None = None
        self._tag: str | None = None
        self._position = self._checksum = 0
        self._failures = self._failed_at = 0
        self._ended_at: int | None = None
        self._ended = False
        self.length: int | None = None
        """The size of the shard, where the server told it with the last request."""

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes, fewer only at the end; `DataError` where the shard cannot be had."""
        parts, missing = [], size
        while missing and not self._ended:
            data = self._some(_CHUNK if size < 0 else missing)
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    @property
    def vouched(self) -> bool:
        """Whether the end that came is known to be that of the shard."""
        return self._attempt is not None and self._attempt.vouched

    def again(self) -> bool:
        """Start over, from the first byte, because what came has no proper end.

        False where the size was known, the same came twice, or there are no retries left: the shard is like that.
        """
        if self.vouched or self._position == self._ended_at or self._failures >= self._access.retries:
            return False
        self._ended_at = self._position
        self._failed(Passing(f"it ended early, after {self._position:,} bytes"))
        self._position = self._checksum = 0
        self._ended = False
        return True

    def connect(self) -> None:
        """Make the first attempt now, so that `length` is known."""
        while self._attempt is None:
            self._try(self._connected)

    def close(self) -> None:
        """End the connection or the command. May be called twice."""
        if self._attempt is not None:
            self._attempt.close()

    def _some(self, size: int) -> bytes:
        """At least one byte, or none at the end."""
        while True:
            data = self._try(lambda: self._connected().read(size))
            if data is not None:
                self._position += len(data)
                self._checksum = zlib.crc32(data, self._checksum)
                self._ended = not data
                return data

    def _try(self, action: Callable[[], T]) -> T | None:
        """What `action` gives; None after a failure that may pass, and a pause."""
        try:
            return action()
        except Passing as error:
            self._failed(error)
            return None
        except Lasting as error:
            self.close()
            raise BadData(f"shard {self._shard} cannot be read: {error}") from error

    def _connected(self) -> Attempt:
        if self._attempt is None:
            self._attempt = attempt = self._new()
            if self.length is not None and attempt.length not in (None, self.length):
                raise Lasting(f"it had {self.length:,} bytes at first, and now has {attempt.length:,}; {CHANGED}")
            self.length = attempt.length
            self._skip(attempt)
        return self._attempt

    def _new(self) -> Attempt:
        if scheme(self._shard) == "pipe":
            return CommandAttempt(self._shard.partition(":")[2], self._access.timeout)
        attempt = HttpAttempt(self._shard, self._position, self._access.timeout, self._tag)
        self._tag = attempt.tag
        return attempt

    def _skip(self, attempt: Attempt) -> None:
        if attempt.begin == self._position:
            return
        missing, checksum = self._position, 0
        while missing:
            data = attempt.read(min(missing, _CHUNK))
            if not data:
                raise Passing(f"this time it ended after {self._position - missing:,} bytes")
            checksum = zlib.crc32(data, checksum)
            missing -= len(data)
        if checksum != self._checksum:
            raise Lasting(f"its content changed meanwhile; {CHANGED}")

    def _failed(self, error: Passing) -> None:
        """Count a failure, tell it and wait; `DataError` where that was the last retry."""
        self.close()
        self._attempt = None
        if self._position - self._failed_at >= PROGRESS:
            self._failures = 0
        self._failed_at = self._position
        self._failures += 1
        if self._failures > self._access.retries:
            times = f"{self._failures} times" if self._failures > 1 else "once"
            raise DataError(
                f"shard {self._shard} cannot be read: tried {times}, the last time: {error.reason}; see that it can be "
                "reached, then go on with --resume; data.retries, data.retry_delay and data.timeout say how long to try"
            )
        delay = min(LONGEST_DELAY, self._access.retry_delay * 2 ** (self._failures - 1))
        wait = max(delay * self._jitter.uniform(0.8, 1.2), min(error.wait, LONGEST_WAIT))
        self._tell(f"{error.reason}; retry {self._failures} of {self._access.retries} after {wait:.2g} s")
        time.sleep(wait)
