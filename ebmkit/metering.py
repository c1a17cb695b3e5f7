"""What training costs: its time, its rate, and the memory that it takes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Mapping

import torch

RATE, SECONDS, MEMORY = "images_per_second", "seconds", "peak_memory_mb"
METERED = (RATE, SECONDS, MEMORY)
"""The metrics of a meter; unlike all others they differ from run to run."""


class Meter:
    """Measures a run from here on; `earlier` are the run's lines of metrics so far, to whose time it adds."""

    def __init__(self, device: str, images: int, earlier: Iterable[Mapping[str, float]]) -> None:
        self._device, self._images, self._started = device, images, time.perf_counter()
        self._before = max((row.get(SECONDS, 0.0) for row in earlier), default=0.0)

    def rewind(self, images: int) -> None:
        """The run goes back by so many `images`, which count as work all the same."""
        self._images -= images

    def read(self, images: int) -> dict[str, float]:
        """The metrics by name, where the run has seen `images` so far."""
        elapsed = time.perf_counter() - self._started
        return {
            RATE: round((images - self._images) / elapsed, 1),
            SECONDS: round(self._before + elapsed, 2),
            MEMORY: round(peak_memory(self._device) / 1e6, 1),
        }


def peak_memory(device: str) -> int:
    """The most bytes that this process has held: torch's own on a GPU, else its resident memory."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
