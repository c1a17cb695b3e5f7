"""Counting what cannot be used, and warning once for each shard."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from ebmkit.errors import DataError
from ebmkit.printable import one_line, printable


class Notice(NamedTuple):
    """Something the user should know once: `topic` tells repetitions, also from another process."""

    topic: str
    text: str


class Tally:
    """What one reader met since it was last asked."""

    def __init__(self) -> None:
        self._topics: set[str] = set()
        self._new: list[Notice] = []
        self._skipped = 0
        self.told: list[str] = []

    def sample(self, shard: str, key: str, reason: str) -> None:
        """A sample that is skipped."""
        self._skipped += 1
        self._note(
            f"sample {shard}",
            f"shard {shard}: sample {one_line(key)} {one_line(reason)}; skipped, like any further one of this shard",
        )

    def missing(self, count: int) -> None:
        """Samples that a manifest promises and a shard, which is told by itself, does not have."""
        self._skipped += count

    def shard(self, shard: str, reason: str) -> None:
        """A shard that is not whole."""
        self._note(f"shard {shard}", f"shard {shard} {one_line(reason, 400)}")

    def retry(self, shard: str, text: str) -> None:
        """Another attempt at a remote shard: every one is told."""
        self._new.append(Notice(f"retry {time.time_ns()} {os.getpid()}", f"shard {shard}: {text}"))

    def unkept(self, shard: str, reason: str) -> None:
        """A remote shard that is not kept in `data.cache_dir`; each reason is told for its first shard."""
        self._note(f"unkept {reason}", f"shard {shard} is streamed, not kept in data.cache_dir: {reason}")

    def take(self) -> tuple[int, tuple[Notice, ...]]:
        """The samples skipped and the news since the last call."""
        news = self._skipped, tuple(self._new)
        self._skipped, self._new = 0, []
        return news

    def _note(self, topic: str, text: str) -> None:
        if topic not in self._topics:
            self._topics.add(topic)
            self._new.append(Notice(topic, printable(text)))
            self.told.append(printable(text))


def nothing_usable(shards: Sequence[str], told: list[str]) -> DataError:
    """The error for a set of which no sample at all could be used; `told` are the notices so far."""
    lines = [f"no usable image in {len(shards)} shard{'s' if len(shards) != 1 else ''}"]
    lines += [f"  {text}" for text in told[:5]]
    if not told:
        more = ", ..." if len(shards) > 3 else ""
        lines.append(f"  the shards are whole, but hold no samples: {', '.join(shards[:3])}{more}")
    return DataError("\n".join(lines))
