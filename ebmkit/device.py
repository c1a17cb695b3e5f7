"""Choosing the device and the threads."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ebmkit.distributed.place import Place
from ebmkit.errors import BadInput


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch compute with `count` threads (None: as many as it likes), then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str, place: Place | None = None) -> str:
    """The torch device that a recipe or command asks for; raises `BadInput` if this machine has none such.

    Where several processes share a machine, each has the GPU of its `local_rank`.
    """
    if place is not None and (place.device is not None or not place.alone):
        return _device_of(name, place)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        reason = str(error).splitlines()[0]
        raise BadInput(f"device '{name}' cannot be used: {reason}; this machine has {', '.join(found)}") from error
    if device.type == "meta":
        raise BadInput("device 'meta' holds no data; use 'auto', 'cpu' or 'cuda'")
    return str(device)


def peak_memory(device: str) -> float:
    """The most memory so far, in GiB: torch's allocations on a GPU, else the resident memory of this process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def _device_of(name: str, place: Place) -> str:
    if place.device == "cuda" and name == "cpu":
        raise BadInput("--gpus contradicts train.device = 'cpu': add --set train.device=auto, or use --processes")
    if place.device == "cpu" or name == "cpu" or (name == "auto" and place.device is None and not _gpus()):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise BadInput(
            f"device '{name}' is for one process; with {place.world_size} of them it is 'auto', 'cpu' or 'cuda'"
        )
    # Slurm may let each task see its own GPU only, which then is the first.
    index = 0 if place.slurm and _gpus() == 1 else place.local_rank
    if index >= _gpus():
        raise BadInput(
            f"rank {place.rank} is process {index + 1} of this machine, which has {_gpus()} GPUs: start a process for "
            "each GPU (--gpus), or compute on CPUs (--processes)"
        )
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def _gpus() -> int:
    return torch.cuda.device_count()
