"""The schedules. All go from the value at progress 0 to the value at progress 1, and are pure."""

from __future__ import annotations

import math

from pydantic import Field

from ebmkit import BaseOptions, Schedule


class Constant(Schedule):
    """The same `value` at all times; a plain number in a recipe means this."""

    name = "constant"

    class Options(BaseOptions):
        """Options of `constant`."""

        value: float = Field(examples=[0.1], description="The value.")

    def __call__(self, progress: float) -> float:
        """`value`."""
        return float(self.options.value)


class StartEnd(BaseOptions):
    """Options of schedules that go from one value to another."""

    start: float = Field(examples=[0.3], description="The value at progress 0.")
    end: float = Field(default=0.0, description="The value at the end, mostly progress 1.")


class Linear(Schedule):
    """A straight line: `start + (end - start) * progress / until`, and `end` from there on."""

    name = "linear"

    class Options(StartEnd):
        """Options of `linear`."""

        until: float = Field(
            default=1.0,
            gt=0,
            le=1,
            description="The progress at which `end` is reached: 0.9 leaves the last tenth at `end`.",
        )

    def __call__(self, progress: float) -> float:
        """The value on the line; exactly `end` from progress `until` on."""
        progress = min(progress / self.options.until, 1.0)
        return float(self.options.start * (1 - progress) + self.options.end * progress)


class Cosine(Schedule):
    """Half a cosine: `end + (start - end) * (1 + cos(pi * progress)) / 2`."""

    name = "cosine"

    class Options(StartEnd):
        """Options of `cosine`."""

    def __call__(self, progress: float) -> float:
        """The value on the cosine; exactly `end` at progress 1."""
        return _cosine(self.options.start, self.options.end, progress)


class CosineRestarts(Schedule):
    """Cosine annealing with warm restarts (Loshchilov & Hutter 2016): `cycles` cosines one after the other."""

    name = "cosine_restarts"

    class Options(StartEnd):
        """Options of `cosine_restarts`."""

        cycles: int = Field(default=4, ge=1, le=100, description="Number of cosines.")
        growth: float = Field(
            default=1.0, gt=0, le=10, description="Each cycle is this many times as long as the last."
        )

    def __call__(self, progress: float) -> float:
        """The value in the cycle that `progress` falls into; exactly `end` at progress 1."""
        cycles, growth = self.options.cycles, self.options.growth
        if progress >= 1:
            # Rounding may leave the last cycle a hair short of its end.
            return float(self.options.end)
        remaining = progress * math.fsum(growth**i for i in range(cycles))
        for cycle in range(cycles):
            length = growth**cycle
            if remaining < length:
                return _cosine(self.options.start, self.options.end, remaining / length)
            remaining -= length
        return float(self.options.end)


class Geometric(Schedule):
    """A constant factor for each step: `start^(1 - progress) * end^progress`; both ends are above 0."""

    name = "geometric"

    class Options(BaseOptions):
        """Options of `geometric`."""

        start: float = Field(gt=0, examples=[1.0], description="The value at progress 0.")
        end: float = Field(gt=0, examples=[0.01], description="The value at progress 1.")

    def __call__(self, progress: float) -> float:
        """The value between `start` and `end`, geometrically."""
        return float(self.options.start ** (1 - progress) * self.options.end**progress)


def _cosine(start: float, end: float, progress: float) -> float:
    if progress >= 1:
        return float(end)
    weight = (1 + math.cos(math.pi * progress)) / 2
    return float(start * weight + end * (1 - weight))
