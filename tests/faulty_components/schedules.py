"""Faults of schedules."""

from __future__ import annotations

import random
from typing import Any

import torch
from pydantic import Field

from ebmkit import (
    BaseOptions,
    Schedule,
)
from faulty_components.common import breaks


class GoodSchedule(Schedule):
    """A line."""

    name = "good"

    class Options(BaseOptions):
        """Options."""

        start: float = Field(default=1.0, description="At 0.")
        end: float = Field(default=0.0, description="At 1.")

    options: Options

    def __call__(self, progress: float) -> float:
        return self.options.start + (self.options.end - self.options.start) * progress


@breaks("is pure", "a schedule keeps no state")
class CountsItsCalls(GoodSchedule):
    """Goes on by its number of calls."""

    calls = 0

    def __call__(self, progress: float) -> float:
        self.calls += 1
        return 1.0 / self.calls


@breaks("is pure", "draws from Python's global random state")
class Jitters(GoodSchedule):
    """Adds jitter."""

    def __call__(self, progress: float) -> float:
        return super().__call__(progress) + random.random()


@breaks("gives a finite number everywhere", "at progress 1 the value is inf (float)")
class DividesByTheRest(GoodSchedule):
    """Is infinite at the end."""

    def __call__(self, progress: float) -> float:
        return 1 / (1 - progress) if progress < 1 else float("inf")


@breaks("gives a finite number everywhere", "return a finite number")
class GivesATensor(GoodSchedule):
    """Gives a tensor."""

    def __call__(self, progress: float) -> Any:
        return torch.tensor(super().__call__(progress))


@breaks("is equal where its options are", "leave __eq__ and __hash__")
class ComparesByIdentity(GoodSchedule):
    """Is equal to itself alone."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__
