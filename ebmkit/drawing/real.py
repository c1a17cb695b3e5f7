"""Real images for pictures: some at random, or all of them part by part. Never all of a data set at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ebmkit.data.cached import ChunkStream
from ebmkit.data.loader import start_workers
from ebmkit.data.reader import ShardSet
from ebmkit.data.tally import nothing_usable
from ebmkit.noise import generator
from ebmkit.options import DataOptions
from ebmkit.sampling import from_uint8

Say = Callable[[str], None]
Done = Callable[[int, "int | None"], None]
"""Called with the number of images read, and of how many, where manifests tell."""


def unheard(done: int, total: int | None) -> None:
    """Nobody watches."""


def some_images(options: DataOptions, count: int, seed: int, say: Say, done: Done = unheard) -> Tensor:
    """`count` different images `[N, C, H, W]` in [-1, 1], fewer where there are no more; which ones, the seed says.

    It reads all of the data, because shards may be sorted, and keeps no more than `count` and a part.
    """
    random = generator("cpu", seed, "real images")
    kept, keys = torch.empty(0, *options.shape, dtype=torch.uint8), torch.empty(0, dtype=torch.float64)
    for _, _, part in all_parts(options, say, done):
        keys = torch.cat([keys, torch.rand(len(part), generator=random, dtype=torch.float64)])
        # Each image has a number drawn for it; the smallest ones win, whatever the order of the data.
        keys, chosen = keys.topk(min(count, len(keys)), largest=False)
        kept = torch.cat([kept, part])[chosen]
    return from_uint8(kept)


def all_parts(options: DataOptions, say: Say, done: Done = unheard) -> Iterator[tuple[str, int, Tensor]]:
    """Every image once: (shard, number of the first within its shard's usable images, `[N, C, H, W]` uint8).

    Raises `DataError` where a shard cannot be read or there is no usable image.
    """
    shard_set = ShardSet.of(options)
    workers = min(options.workers, len(shard_set.shards)) if len(shard_set.shards) > 1 else 0
    seen: dict[int, int] = {}
    told: dict[str, str] = {}
    for chunk in start_workers(ChunkStream(shard_set), workers):
        for notice in chunk.notices:
            if notice.topic not in told:
                told[notice.topic] = notice.text
                say(notice.text)
        if chunk.failure is not None:
            raise chunk.failure
        if len(chunk.images) == 0:
            continue
        # The chunks of one shard come from one worker, in their order.
        number = chunk.order[0]
        first = seen.get(number, 0)
        seen[number] = first + len(chunk.images)
        yield shard_set.shards[number], first, chunk.images
        done(sum(seen.values()), shard_set.total)
    if not seen:
        raise nothing_usable(shard_set.shards, list(told.values()))
