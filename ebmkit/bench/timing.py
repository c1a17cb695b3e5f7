"""Taking times: of whole steps, side by side, and of the sections within a step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch

MOST_STEPS, MOST_ROUNDS = 20, 10
"""Unless they are asked for. Many short rounds: what else the machine does then meets both sides alike."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one step in each round, of the very first one (which may compile), and the peak memory in bytes."""

    seconds: tuple[float, ...]
    first: float
    peak_memory: int | None

    @property
    def median(self) -> float:
        """Seconds of a step: the median of the rounds."""
        return median(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one is as the other: of the medians, and the lowest and highest of a single round."""

    value: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Plan:
    """How long to measure: steps in a round and rounds, each chosen to fit `seconds` where it is None."""

    steps: int | None = None
    rounds: int | None = None
    seconds: float = 20.0

    def fitting(self, one_of_each: float) -> tuple[int, int]:
        """(steps in a round, rounds), where one step of everything that is compared takes `one_of_each` seconds."""
        affordable = self.seconds / one_of_each
        rounds = self.rounds or max(2, min(MOST_ROUNDS, int(affordable)))
        return self.steps or max(1, min(MOST_STEPS, int(affordable / rounds))), rounds


def ratio(ours: Timing, theirs: Timing) -> Ratio:
    """How many times as fast as `theirs` `ours` is."""
    each = [b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
    return Ratio(theirs.median / ours.median, min(each), max(each))


def wait_for(device: str) -> None:
    """Return when the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device.startswith("mps"):
        torch.mps.synchronize()


def seconds_of(call: Callable[[], object], device: str, times: int = 1) -> float:
    """Seconds of one `call`, of `times` in a row."""
    wait_for(device)
    begin = time.perf_counter()
    for _ in range(times):
        call()
    wait_for(device)
    return (time.perf_counter() - begin) / times


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    device: str,
    plan: Plan,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, tuple[float, ...]]:
    """Seconds of one call in each round. The calls take turns within a round, in the opposite order every other time.

    So whatever else the machine does at some time, it does to all of them. Each must have been called before.
    """
    once = sum(seconds_of(call, device) for call in calls.values())
    steps, rounds = plan.fitting(once)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(seconds_of(calls[name], device, steps))
        progress(number + 1, rounds)
    return {name: tuple(values) for name, values in found.items()}


class Stopwatch:
    """`Sections` whose times are summed; waits for the device at every border, so that each pays for its own work."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add the time of this context to the section `name`."""
        wait_for(self.device)
        begin = time.perf_counter()
        yield
        wait_for(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


def split_of(watch: Stopwatch, whole: float, steps: int) -> dict[str, float]:
    """Seconds of each section of a step, and of `other`, where `steps` of them took `whole` seconds each."""
    parts = {name: seconds / steps for name, seconds in watch.seconds.items()}
    return parts | {"other": max(0.0, whole - math.fsum(parts.values()))}
