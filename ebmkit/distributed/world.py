"""What the processes of a job tell each other: small values between hosts, never in the way of the device."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from ebmkit.distributed.interface import interface_to
from ebmkit.distributed.place import Place
from ebmkit.errors import BadInput, RankLost

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: the first decoding of a large set may take one of them much longer."""
MEETING = timedelta(minutes=10)
"""How long the first rank waits for the last one to be started."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LOST = (
    "gloo/transport",
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "timed out waiting",
    "socket closed",
)
"""What gloo says where a peer is gone; NCCL's errors have a type."""


class World(ABC):
    """The processes of a job, as one of them sees it. Every method but `lost_peers` is called by all of them alike."""

    rank: int = 0
    size: int = 1
    say: Callable[[str], None] = staticmethod(print)
    """Tells people what ended this process, where nothing else can any more."""

    @property
    def first(self) -> bool:
        """Whether this is the process that shows, logs and writes for the job."""
        return self.rank == 0

    @abstractmethod
    def barrier(self) -> None:
        """Wait for all others."""

    @abstractmethod
    def broadcast(self, value: T) -> T:
        """Rank 0's `value`."""

    @abstractmethod
    def gather(self, value: T) -> list[T] | None:
        """The values of all ranks, in their order, on rank 0; None elsewhere."""

    @abstractmethod
    def all_gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""

    @abstractmethod
    def agree(self, asked: bool) -> bool:
        """Whether any rank asked, up to one call ago: the same answer on every rank, without waiting for one."""

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each value over the ranks that have it; names in rank 0's order."""
        rows = self.all_gather(dict(values))
        names = dict.fromkeys(name for row in rows for name in row)
        found = {name: [row[name] for row in rows if name in row] for name in names}
        return {name: sum(items) / len(items) for name, items in found.items()}


class Solo(World):
    """One process."""

    def barrier(self) -> None:
        """Nobody to wait for."""

    def broadcast(self, value: T) -> T:
        """Its own value."""
        return value

    def gather(self, value: T) -> list[T] | None:
        """Its own value."""
        return [value]

    def all_gather(self, value: T) -> list[T]:
        """Its own value."""
        return [value]

    def agree(self, asked: bool) -> bool:
        """At once."""
        return asked


class Group(World):
    """Several processes, over gloo: host memory only, also where the gradients travel over NCCL."""

    def __init__(self, place: Place) -> None:
        self.rank, self.size = place.rank, place.world_size
        with lost_peers():
            self.hosts: Any = dist.new_group(backend="gloo", timeout=TIMEOUT)
        self._asked: tuple[torch.Tensor, Any] | None = None

    def barrier(self) -> None:
        """Wait for all others."""
        with lost_peers():
            dist.barrier(group=self.hosts)

    def broadcast(self, value: T) -> T:
        """Rank 0's `value`."""
        box = [value]
        with lost_peers():
            dist.broadcast_object_list(box, src=0, group=self.hosts)
        return box[0]

    def gather(self, value: T) -> list[T] | None:
        """The values of all ranks, on rank 0."""
        rows: list[Any] | None = [None] * self.size if self.first else None
        with lost_peers():
            dist.gather_object(value, rows, dst=0, group=self.hosts)
        return rows

    def all_gather(self, value: T) -> list[T]:
        """The values of all ranks."""
        rows: list[Any] = [None] * self.size
        with lost_peers():
            dist.all_gather_object(rows, value, group=self.hosts)
        return rows

    def agree(self, asked: bool) -> bool:
        """Whether any rank asked at the call before: its answer travelled during the step between."""
        with lost_peers():
            before = self._asked
            if before is not None:
                before[1].wait()
            flag = torch.tensor([asked], dtype=torch.uint8)
            self._asked = flag, dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.hosts, async_op=True)
            return before is not None and bool(before[0].item())

    def close(self) -> None:
        """Leave the job."""
        if self._asked is not None:
            self._asked[1].wait()
        dist.destroy_process_group()


def join(place: Place) -> World:
    """Meet the other processes of the job; raises `BadInput` where they cannot be reached."""
    if place.alone:
        return Solo()
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
    }
    name = None if place.address in LOOPBACK else interface_to(place.address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    backend = "gloo" if cpu_only(place) else "cpu:gloo,cuda:nccl"
    try:
        # torchrun's agent holds the store itself.
        holds = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        store = TCPStore(place.address, place.port, is_master=holds, timeout=MEETING, wait_for_workers=False)
        own = PrefixStore(f"ebmkit/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/torch", store)
        dist.init_process_group(backend, store=own, rank=place.rank, world_size=place.world_size, timeout=TIMEOUT)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"rank {place.rank} of {place.world_size} cannot meet the others at {place.address}:{place.port}: {reason}"
            "; MASTER_ADDR must be rank 0's host, reachable from here, and MASTER_PORT free there"
        ) from error
    return Group(place)


def cpu_only(place: Place) -> bool:
    """Whether this job computes on CPUs: it was asked to, or there is no GPU."""
    return place.device == "cpu" or not torch.cuda.is_available()


@contextmanager
def lost_peers() -> Iterator[None]:
    """Raise `RankLost` for errors that mean that another process of the job is gone."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if isinstance(error, dist.DistError) or any(word in str(error).lower() for word in _LOST):
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise RankLost(f"the connection to another process of the job broke: {reason}") from error
        raise


def split(items: Sequence[T], world: World) -> list[T]:
    """This rank's part of `items`: every `world.size`-th one."""
    return list(items[world.rank :: world.size])
