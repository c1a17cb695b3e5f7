"""Who reads what, in which order: pure functions of the seed, so that nothing has to be stored but positions.

A *role* is one worker process of one rank; there are `world_size * workers` of them. In every pass the shards are
permuted anew and dealt out. Where there are fewer shards than roles, several roles share a shard and take every n-th of
its samples, so that in one pass no image is used twice and every role has work.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Position:
    """Where a role stands: `done` samples into the window that begins at `sample` of its `shard`-th shard."""

    pass_number: int = 0
    shard: int = 0
    sample: int = 0
    window: int = 0
    done: int = 0

    def to_plain(self) -> dict[str, int]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Position:
        """Back from `to_plain`."""
        return cls(**plain)


class Share(NamedTuple):
    """A role's part of a pass: of each of `shards`, the samples whose number is `phase` modulo `stride`."""

    shards: list[str]
    stride: int
    phase: int


def random_for(*key: int | str) -> random.Random:
    """A generator that depends on `key` alone."""
    text = "/".join(str(part) for part in key)
    return random.Random(hashlib.blake2b(text.encode(), digest_size=16).digest())


def share(shards: Sequence[str], seed: int, pass_number: int, role: int, roles: int) -> Share:
    """What `role` of `roles` reads in this pass."""
    order = list(shards)
    random_for(seed, "shards", pass_number).shuffle(order)
    if len(order) >= roles:
        return Share(order[role::roles], 1, 0)
    place = role % len(order)
    sharers = len(range(place, roles, len(order)))
    # The phase moves on, so that with fewer samples than sharers everyone has work in some pass.
    return Share([order[place]], sharers, (role // len(order) + pass_number) % sharers)


def window_order(seed: int, role: int, position: Position, size: int) -> list[int]:
    """The order in which the samples of a window are given."""
    order = list(range(size))
    random_for(seed, "window", position.pass_number, role, position.window).shuffle(order)
    return order


def fingerprint(shards: Sequence[str], seed: int, roles: int, shuffle: int) -> str:
    """Two streams whose fingerprints are equal give the same images from the same positions.

    Of the shards only the file names count: a run goes on exactly after its data were moved to another folder.
    """
    text = "\n".join([str(seed), str(roles), str(shuffle), *(shard.rpartition("/")[2] for shard in shards)])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
