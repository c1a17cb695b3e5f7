"""How remote shards are fetched, and the two ways in which one attempt may fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ebmkit.data.remote.folder import CacheFolder

GIB = 2**30
CHANGED = "go on with --resume once nothing writes to it"
"""What to do about a shard that is not the same each time."""


@dataclass(frozen=True)
class Access:
    """The options of `[data]` about remote shards, times in seconds. Picklable."""

    retries: int = 5
    retry_delay: float = 1.0
    timeout: float = 60.0
    cache: CacheFolder | None = None


class Passing(Exception):
    """An attempt failed in a way that may pass; `wait` is how long the server asks to be left alone."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


class Lasting(Exception):
    """An attempt failed, and so will every other one; the message says what to do."""


class Attempt(Protocol):
    """One connection, or one run of a command."""

    @property
    def begin(self) -> int:
        """Where in the shard the first byte lies."""

    @property
    def length(self) -> int | None:
        """The size of the whole shard, where it is known."""

    @property
    def vouched(self) -> bool:
        """Whether an end without an error means that every byte came."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes, at least one before the end; `Passing` or `Lasting` where there are none."""

    def close(self) -> None:
        """Give up what is open. May be called twice."""
