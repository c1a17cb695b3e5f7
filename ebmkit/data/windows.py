"""The raw samples of one role, in windows that can be found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ebmkit.data.reader import ShardSet
from ebmkit.data.roles import Position, share
from ebmkit.data.tally import Tally
from ebmkit.data.tar_shard import Raw

MAX_WINDOW = 2**30
"""Bytes of encoded images after which a window ends, however few they are."""


class Window(NamedTuple):
    """Consecutive samples of one pass; `begin` is where they begin, `last` whether the pass ends with them."""

    begin: Position
    samples: list[Raw]
    last: bool


@dataclass(frozen=True)
class Role:
    """One of `roles` readers of the same shards."""

    shard_set: ShardSet
    seed: int
    role: int
    roles: int
    shuffle: int

    def windows(self, start: Position, tally: Tally) -> Iterator[Window | None]:
        """Endless windows of `shuffle` samples, the first one at `start`; passes end windows.

        Gives None after every sample that is read, so that the caller can spread the reading of the next window over
        the use of the current one. `tally` hears of shards that are not whole.
        """
        begin = start
        while True:
            samples: list[Raw] = []
            held = 0
            for shard, sample, raw in self._pass(begin, tally):
                if len(samples) == self.shuffle or held > MAX_WINDOW:
                    yield Window(begin, samples, last=False)
                    begin = Position(begin.pass_number, shard, sample, begin.window + 1)
                    samples, held = [], 0
                samples.append(raw)
                held += len(raw.image or b"")
                yield None
            yield Window(begin, samples, last=True)
            begin = Position(begin.pass_number + 1)

    def _pass(self, begin: Position, tally: Tally) -> Iterator[tuple[int, int, Raw]]:
        """The rest of a pass: shard number, sample number in the shard, and the sample."""
        mine = share(self.shard_set.shards, self.seed, begin.pass_number, self.role, self.roles)
        for number in range(begin.shard, len(mine.shards)):
            name = mine.shards[number]
            first = begin.sample if number == begin.shard else 0
            index = -1
            for index, raw in enumerate(self.shard_set.read(name, tally)):
                if index >= first and index % mine.stride == mine.phase:
                    yield number, index, raw
            missing = range(max(first, index + 1), self.shard_set.expected.get(name, 0))
            tally.missing(sum(index % mine.stride == mine.phase for index in missing))
