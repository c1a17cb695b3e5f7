"""The whole set, decoded once and held as uint8 on the training device."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ebmkit.data.loader import start_workers
from ebmkit.data.reader import ShardSet
from ebmkit.data.roles import fingerprint, random_for
from ebmkit.data.source import NEXT_PASS, Batch, ImageSource, Progress, Warn
from ebmkit.data.tally import Notice, Tally, nothing_usable
from ebmkit.errors import DataError
from ebmkit.interfaces import Context

CHUNK, CHUNK_BYTES = 1024, 2**28
"""Images that a worker sends at a time, fewer where they are of more bytes."""


class Chunk(NamedTuple):
    """Images of one shard, in its order. `order` sorts the chunks of the whole set."""

    order: tuple[int, int]
    images: Tensor
    labels: Tensor
    skipped: int
    notices: tuple[Notice, ...]
    failure: DataError | None = None


class ChunkStream(IterableDataset[Chunk]):
    """Every image of the set once, but for the chunks `taken`; worker w of W reads every W-th shard."""

    def __init__(self, shard_set: ShardSet, taken: Collection[tuple[int, int]] = ()) -> None:
        self.shard_set = shard_set
        self.taken = frozenset(taken)

    def __iter__(self) -> Iterator[Chunk]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        tally = Tally()
        for number in range(first, len(self.shard_set.shards), step):
            yield from (chunk for chunk in self._chunks(number, tally) if chunk.order not in self.taken)

    def _chunks(self, number: int, tally: Tally) -> Iterator[Chunk]:
        name = self.shard_set.shards[number]
        part, images, read = 0, self._empty(), 0
        labels: list[int] = []
        try:
            for raw in self.shard_set.read(name, tally):
                read += 1
                image = self.shard_set.image(raw, tally)
                if image is None:
                    continue
                images[len(labels)] = image
                labels.append(raw.label)
                if len(labels) == len(images):
                    yield Chunk((number, part), images, torch.tensor(labels), *tally.take())
                    part, images, labels = part + 1, self._empty(), []
        except DataError as error:
            yield Chunk((number, part), images[:0], torch.empty(0), *tally.take(), error)
        else:
            count = len(labels)
            tally.missing(max(0, self.shard_set.expected.get(name, 0) - read))
            yield Chunk((number, part), images[:count].clone(), torch.tensor(labels, dtype=torch.int64), *tally.take())

    def _empty(self) -> Tensor:
        shape = self.shard_set.decoder.shape
        return torch.empty((max(1, min(CHUNK, CHUNK_BYTES // math.prod(shape))), *shape), dtype=torch.uint8)


def chunks_of(shard_set: ShardSet, workers: int, warn: Warn) -> Iterator[Chunk]:
    """Every image of the set once, in chunks in any order; notices are told once.

    `DataError` where a shard cannot be read or there is no usable image.
    """
    done, told, taken = 0, dict[str, str](), set[tuple[int, int]]()
    for chunk in start_workers(lambda _: ChunkStream(shard_set, taken), workers, warn):
        done += len(chunk.labels)
        taken.add(chunk.order)
        for notice in chunk.notices:
            if notice.topic not in told:
                told[notice.topic] = notice.text
                warn(notice.text)
        if chunk.failure is not None:
            raise chunk.failure
        yield chunk
    if done == 0:
        raise nothing_usable(shard_set.shards, list(told.values()))


class Decoded(NamedTuple):
    """A whole set in the order of its shards: `images[N, C, H, W]` uint8, `labels[N]` int64."""

    images: Tensor
    labels: Tensor
    skipped: int


def decode_all(
    shard_set: ShardSet,
    *,
    workers: int,
    warn: Warn,
    device: str = "cpu",
    limit: int | None = None,
    budget: float = float("inf"),
    progress: Progress | None = None,
) -> Decoded | None:
    """Decode the set, at most its first `limit` images; None where it needs more than `budget` bytes.

    `DataError` where there is no usable image.
    """
    channels, height, width = shard_set.decoder.shape
    room = budget / (channels * height * width)
    total = shard_set.total if limit is None else limit
    if total is not None and total > room:
        return None
    # The first images in order need one reader; and a single shard keeps only one worker busy.
    workers = 0 if limit is not None or len(shard_set.shards) == 1 else min(workers, len(shard_set.shards))
    chunks: list[Chunk] = []
    done = skipped = 0
    for chunk in chunks_of(shard_set, workers, warn):
        chunks.append(chunk)
        done += len(chunk.labels)
        skipped += chunk.skipped
        if done > room:
            return None
        if progress:
            progress(done, total)
        if limit is not None and done >= limit:
            break
    count = done if limit is None else min(done, limit)
    return _joined(chunks, count, skipped, torch.device(device))


def _joined(chunks: list[Chunk], count: int, skipped: int, device: torch.device) -> Decoded:
    """One tensor on `device`. Chunks are freed as they are copied, so that the set is never twice in memory."""
    chunks.sort(key=lambda chunk: chunk.order, reverse=True)
    images = torch.empty((count, *chunks[0].images.shape[1:]), dtype=torch.uint8, device=device)
    labels = torch.empty(count, dtype=torch.int64, device=device)
    begin = 0
    while chunks:
        chunk = chunks.pop()
        end = min(count, begin + len(chunk.labels))
        images[begin:end] = chunk.images[: end - begin].to(device)
        labels[begin:end] = chunk.labels[: end - begin].to(device)
        begin = end
    return Decoded(images, labels, skipped)


class CachedImages(ImageSource):
    """Batches from a decoded set.

    The ranks take turns in one endless sequence, a new permutation of the set for every pass. So the whole position is
    the number of images that all ranks have seen, and it holds for any number of ranks.
    """

    whole = True

    def __init__(
        self,
        decoded: Decoded,
        shards: Sequence[str],
        context: Context,
        batch_size: int,
        state: Mapping[str, Any] | None,
        warn: Warn,
    ) -> None:
        self._images, self._labels, self.skipped = decoded
        self._context = context
        self._batch_size = batch_size
        self._orders: dict[int, Tensor] = {}
        self._fingerprint = fingerprint(shards, context.seed, len(self._images), 0)
        self._warn = warn
        self.go_to(state)

    def go_to(self, state: Mapping[str, Any] | None) -> None:
        """Nothing but a number changes."""
        self._seen = 0
        if state is not None and state.get("fingerprint") == self._fingerprint:
            self._seen = int(state["seen"])
        elif state is not None:
            self._seen = (int(state["pass"]) + 1) * len(self._images)
            self._warn(NEXT_PASS)

    def next(self) -> Batch:
        """The next batch, gathered on the device."""
        total, ranks = len(self._images), self._context.world_size
        begin = self._seen + self._context.rank
        self._seen += ranks * self._batch_size
        places = range(begin, begin + ranks * self._batch_size, ranks)
        passes = range(places[0] // total, places[-1] // total + 1)
        self._orders = {number: self._order(number) for number in passes}
        # Slices of orders that lie on the device: nothing is copied from the host, so that nothing waits.
        slices = [self._orders[n][_within(places, n * total, total)] for n in passes]
        chosen = torch.cat(slices)
        return Batch(self._images[chosen], self._labels[chosen])

    def state_dict(self) -> dict[str, Any]:
        """The number of images that all ranks have seen."""
        return {
            "kind": "cache",
            "fingerprint": self._fingerprint,
            "seen": self._seen,
            "pass": (self._seen - 1) // len(self._images),
            "skipped": self.skipped,
        }

    def _order(self, number: int) -> Tensor:
        if number in self._orders:
            return self._orders[number]
        generator = torch.Generator().manual_seed(random_for(self._context.seed, "cache", number).getrandbits(63))
        return torch.randperm(len(self._images), generator=generator).to(self._images.device)


def _within(places: range, begin: int, count: int) -> slice:
    """The `places` that lie in [begin, begin + count), counted from `begin`."""
    inside = places[max(0, _steps_to(places, begin)) : _steps_to(places, begin + count)]
    return slice(inside.start - begin, inside.stop - begin, inside.step)


def _steps_to(places: range, limit: int) -> int:
    """How many of the `places`, if they went on, lie below `limit`."""
    return -((places.start - limit) // places.step)
