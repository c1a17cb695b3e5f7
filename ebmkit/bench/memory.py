"""Peak memory: of the GPU as torch counts it, or of this process as Linux does."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


class PeakMemory:
    """A context; `rise` is the most bytes that were in use within it, above those at its begin. None where unknown.

    On a GPU, torch's own allocations; on the CPU, the resident memory of this process, data workers not included.
    """

    rise: int | None = None

    def __init__(self, device: str) -> None:
        self.device = device

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before: int | None = torch.cuda.memory_allocated(self.device)
        else:
            self.before = _reset() if self.device == "cpu" else None
        return self

    def __exit__(self, *_: object) -> None:
        self.read()

    def read(self) -> None:
        """Take the rise up to now."""
        if self.before is None:
            return
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.startswith("cuda") else _status("VmHWM")
        if peak is not None:
            self.rise = max(0, peak - self.before)


def _reset() -> int | None:
    """Let the kernel's mark of the highest resident memory begin anew; that of now, or None where that cannot be."""
    try:
        # What the C library keeps of freed memory would hide as much of the rise.
        ctypes.CDLL(None).malloc_trim(0)
        (_PROCESS / "clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def _status(key: str) -> int | None:
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None
