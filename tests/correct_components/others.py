"""A buffer without chance, and schedules that give integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ebmkit import BaseOptions, Buffer, Context, Draw, Schedule
from ebmkit.noise import generator as noise_generator


class FirstInFirstOut(Buffer):
    """Goes through its slots in a fixed order; a chain that has come to t = 1 begins again from noise."""

    name = "fifo"

    class Options(BaseOptions):
        """Options."""

        size: int = Field(default=100, ge=1, description="Slots over all ranks.")

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        super().__init__(options, context)
        count = options.size // context.world_size + (context.rank < options.size % context.world_size)
        self.random = noise_generator(context.device, context.seed, "fifo", context.rank)
        self.x = torch.randn(count, *context.image_shape, generator=self.random)
        self.t = torch.arange(count) % context.time_steps + 1
        self.next = 0

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        if n > len(self.t):
            raise ValueError(f"{len(self.t)} slots, fewer than {n}")
        slots = (self.next + torch.arange(n)) % len(self.t)
        return Draw(slots, self.x[slots], self.t[slots])

    def store(self, slots: Tensor, x: Tensor) -> None:
        self.next = (int(slots[-1]) + 1) % len(self.t)
        self.x[slots] = x
        self.t[slots] = torch.where(self.t[slots] > 1, self.t[slots] - 1, self.context.time_steps)

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x, "t": self.t, "next": self.next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["x"].shape != self.x.shape or state["t"].shape != self.t.shape:
            raise ValueError("another size")
        self.x.copy_(state["x"])
        self.t.copy_(state["t"])
        self.next = int(state["next"])


class Steps(Schedule):
    """1, then 0: integers."""

    name = "steps"

    def __call__(self, progress: float) -> float:
        return int(progress < 0.5)


class NumpySteps(Schedule):
    """Numbers of numpy, in single precision."""

    name = "numpy_steps"

    def __call__(self, progress: float) -> float:
        return np.float32(1) - np.float32(progress)  # type: ignore[return-value]
