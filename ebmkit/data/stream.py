"""Streaming: endless shuffled batches straight from the shards, resumable at any batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ebmkit.data.loader import start_workers
from ebmkit.data.reader import ShardSet
from ebmkit.data.roles import Position, fingerprint, window_order
from ebmkit.data.source import NEXT_PASS, Batch, ImageSource, Warn
from ebmkit.data.tally import Notice, Tally, nothing_usable
from ebmkit.data.windows import Role, Window
from ebmkit.errors import DataError
from ebmkit.interfaces import Context


class Parcel(NamedTuple):
    """What a worker sends: a batch, its role's position after it, and what happened on the way; or a failure."""

    images: Tensor
    labels: Tensor
    position: Position
    skipped: int
    notices: tuple[Notice, ...]
    failure: DataError | None = None


@dataclass(frozen=True)
class RoleReader:
    """The decoded images of one role."""

    role: Role

    @property
    def shard_set(self) -> ShardSet:
        """Where the images come from."""
        return self.role.shard_set

    def images(self, start: Position, tally: Tally) -> Iterator[tuple[Tensor, int, Position]]:
        """Endless `(image[C, H, W], label, position after it)` from `start` on; `DataError` where none is usable."""
        windows = self.role.windows(start, tally)
        done, usable, barren = start.done, start != Position(start.pass_number), 0
        ahead: Window | None = None
        while True:
            window = ahead or next(found for found in windows if found is not None)
            ahead = None
            order = window_order(self.role.seed, self.role.role, window.begin, len(window.samples))
            pending = [window.samples[place] for place in reversed(order[done:])]
            window.samples.clear()
            for number in range(done, len(order)):
                # One sample is read for each one used: no pause between windows, and no second window in memory.
                ahead = ahead or next(windows)
                raw = pending.pop()
                image = self.shard_set.image(raw, tally)
                if image is not None:
                    usable = True
                    yield image, raw.label, replace(window.begin, done=number + 1)
            done = 0
            if window.last:
                barren = 0 if usable else barren + 1
                usable = False
                if barren == self.role.roles:
                    # As many samples as the whole set has, but chance may have dealt the same bad shard every time.
                    if not self._anything_usable():
                        raise nothing_usable(self.shard_set.shards, tally.told)
                    barren = 0

    def _anything_usable(self) -> bool:
        """Whether any shard of the set has an image that can be used."""
        quiet = Tally()
        raws = (raw for shard in self.shard_set.shards for raw in self.shard_set.read(shard, quiet))
        return any(self.shard_set.image(raw, quiet) is not None for raw in raws)


class ParcelStream(IterableDataset[Parcel]):
    """The endless parcels of one rank: one role for each worker process, or one role in this process."""

    def __init__(self, readers: list[RoleReader], starts: list[Position], first: int, batch_size: int) -> None:
        self.readers = readers
        self.starts = starts
        self.first = first
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Parcel]:
        worker = get_worker_info()
        # Batches come from the workers in turn, so the role that is due next must be the first worker's.
        local = (self.first + (worker.id if worker else 0)) % len(self.readers)
        reader, tally, position = self.readers[local], Tally(), self.starts[local]
        found = reader.images(position, tally)
        try:
            while True:
                images = torch.empty((self.batch_size, *reader.shard_set.decoder.shape), dtype=torch.uint8)
                labels = torch.empty(self.batch_size, dtype=torch.int64)
                for place in range(self.batch_size):
                    images[place], labels[place], position = next(found)
                yield Parcel(images, labels, position, *tally.take())
        except DataError as error:
            nothing = torch.empty(0)
            yield Parcel(nothing, nothing, position, *tally.take(), error)


class ShardStream(ImageSource):
    """Batches from shards, by `workers` processes or in this one."""

    def __init__(
        self,
        shard_set: ShardSet,
        context: Context,
        batch_size: int,
        *,
        workers: int,
        shuffle: int,
        state: Mapping[str, Any] | None,
        warn: Warn,
    ) -> None:
        count = max(1, workers)
        roles = context.world_size * count
        self._device = torch.device(context.device)
        self._warn = warn
        self._seen: set[str] = set()
        self._fingerprint = fingerprint(shard_set.shards, context.seed, roles, shuffle)
        self._readers = [
            RoleReader(Role(shard_set, context.seed, context.rank * count + local, roles, shuffle))
            for local in range(count)
        ]
        self._batch_size, self._workers = batch_size, workers
        self._parcels: Iterator[Parcel] | None = None
        self.go_to(state)

    def go_to(self, state: Mapping[str, Any] | None) -> None:
        """End the workers, and start others there."""
        self.close()
        self._positions, self._next, self.skipped = [Position()] * len(self._readers), 0, 0
        if state is not None:
            self._restore(state)
        # `next` keeps the positions up to date, so that workers that take over begin there.
        positions, first = self._positions, self._next

        def parcels(taken: int) -> ParcelStream:
            turn = (first + taken) % len(self._readers)
            return ParcelStream(self._readers, list(positions), turn, self._batch_size)

        self._parcels = start_workers(parcels, self._workers, self._warn)

    def next(self) -> Batch:
        """The next batch, and the warnings that came with it."""
        if self._parcels is None:
            raise RuntimeError("this image source is closed")
        parcel = next(self._parcels)
        self.skipped += parcel.skipped
        for notice in parcel.notices:
            if notice.topic not in self._seen:
                self._seen.add(notice.topic)
                self._warn(notice.text)
        if parcel.failure is not None:
            self.close()
            raise parcel.failure
        self._positions[self._next] = parcel.position
        self._next = (self._next + 1) % len(self._positions)
        return Batch(self._on_device(parcel.images), self._on_device(parcel.labels))

    def _on_device(self, values: Tensor) -> Tensor:
        if self._device.type == "cuda":
            # From pinned memory the host need not wait for the steps that the device still works on.
            values = values.pin_memory()
        return values.to(self._device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """The position of every role of this rank, and whose turn it is."""
        return {
            "kind": "stream",
            "fingerprint": self._fingerprint,
            "pass": max(position.pass_number for position in self._positions),
            "roles": [position.to_plain() for position in self._positions],
            "next": self._next,
            "skipped": self.skipped,
        }

    def close(self) -> None:
        """End the workers: torch does so when their iterator is deleted."""
        self._parcels = None

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.skipped = int(state.get("skipped", 0))
        if state.get("fingerprint") == self._fingerprint:
            self._positions = [Position.from_plain(plain) for plain in state["roles"]]
            self._next = int(state["next"])
        else:
            self._positions = [Position(int(state["pass"]) + 1)] * len(self._positions)
            self._warn(NEXT_PASS)
