"""Metrics as curves, thinned to what a screen can show."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

MAX_METRICS = 60
"""Names of metrics that are kept; a run whose plugins log more shows the first of them."""
HIDDEN = frozenset({"step", "images", "seconds"})
"""What a row says of its place, and no curve."""


class Curves:
    """The values of every metric by step; a value that is missing or not finite is NaN."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.values: dict[str, array[float]] = {}
        self.left_out: set[str] = set()

    def add(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Take a row of metrics.jsonl, whose numbers come back; a row without a step of its own is passed over."""
        numbers = {name: float(value) for name, value in row.items() if _is_number(value)}
        step = numbers.get("step", math.nan)
        if not (math.isfinite(step) and 0 <= step < 2**53):
            return {}
        for name in numbers:
            if name in self.values or name in HIDDEN:
                continue
            if len(self.values) < MAX_METRICS:
                self.values[name] = array("d", [math.nan]) * len(self.steps)
            elif len(self.left_out) < 10_000:
                self.left_out.add(name)
        self.steps.append(int(step))
        for name, values in self.values.items():
            values.append(numbers.get(name, math.nan))
        return numbers

    def thinned(self, name: str, points: int) -> tuple[list[int], list[float | None]]:
        """Steps and values of one curve, at most `points` (4 or more); None is a gap. Extremes are kept."""
        values = self.values[name]
        kept = extremes(values, points)
        return [self.steps[i] for i in kept], [_short(values[i]) for i in kept]


def extremes(values: Sequence[float], points: int) -> list[int]:
    """Indices of at most `points` values, in order: both ends, and the lowest and the highest of equal stretches.

    A stretch in which a value is NaN gives that one, too, as a gap should not vanish; 4 points are the least.
    """
    count = len(values)
    if count <= points:
        return list(range(count))
    # Three of each stretch at most, and the ends.
    stretches = max(1, (points - 2) // 3)
    kept = {0, count - 1}
    for number in range(stretches):
        inside = range(number * count // stretches, (number + 1) * count // stretches)
        finite = [i for i in inside if math.isfinite(values[i])]
        if finite:
            kept.add(min(finite, key=values.__getitem__))
            kept.add(max(finite, key=values.__getitem__))
        if len(finite) < len(inside):
            kept.add(next(i for i in inside if not math.isfinite(values[i])))
    return sorted(kept)


def _is_number(value: Any) -> bool:
    # Whole numbers of any length are JSON, too.
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def _short(value: float) -> float | None:
    """Six digits are more than a screen shows, and a third of the bytes."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
