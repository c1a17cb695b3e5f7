"""The machine: what it is, and the most that it computes and copies in a second."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

import ebmkit
from ebmkit.bench.timing import seconds_of

SMALLEST, LARGEST = 256, 8192
"""Rows and columns of the matrices: doubled until a product takes `LONG`, so that arithmetic is the limit."""
LONG = 0.01
"""Seconds."""
COPY = {"cuda": 2**30, "cpu": 2**27}
"""Bytes of the copy: far more than any cache."""
TRIALS = 5


def describe_machine(device: str) -> dict[str, str | int]:
    """Names and versions, for a reader who compares two reports."""
    told: dict[str, str | int] = {
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "processor": _processor(),
        "processors": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "ebmkit": ebmkit.__version__,
    }
    if device.startswith("cuda"):
        told["cuda"] = str(torch.version.cuda)
    return told


def ceilings(device: str) -> dict[str, float]:
    """FLOP/s of a large product of matrices by its arithmetic (`float32`, `bf16`, on CUDA `tf32`), and `copy` in B/s.

    Each is the best of some trials, with the threads that torch has now.
    """
    kind = "cuda" if device.startswith("cuda") else "cpu"
    found = {"float32": _matmul(device, torch.float32, "highest"), "bf16": _matmul(device, torch.bfloat16)}
    if kind == "cuda":
        found["tf32"] = _matmul(device, torch.float32, "high")
    source = torch.empty(COPY[kind], dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    # Each byte is read and written.
    found["copy"] = 2 * len(source) / _best(lambda: target.copy_(source), device)
    return found


def _matmul(device: str, dtype: torch.dtype, precision: str = "highest") -> float:
    size, best = SMALLEST // 2, 0.0
    with _float32_products(precision):
        # A processor without bf16 arithmetic is some hundred times slower: it must not take a minute to find out.
        while size < LARGEST and best < LONG:
            size *= 2
            a = torch.randn(size, size, device=device).to(dtype)
            best = _best(partial(torch.matmul, a, a), device)
    return 2 * float(size) ** 3 / best


def _best(call: Callable[[], object], device: str) -> float:
    call()
    return min(seconds_of(call, device, times=3) for _ in range(TRIALS))


@contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
