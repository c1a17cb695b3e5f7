"""Choosing the device and the threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

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


def choose_device(name: str) -> str:
    """The torch device that a recipe or command asks for; raises `BadInput` if this machine has none such."""
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
