"""Comparing the points of an experiment with its first one, in spite of few seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

UNLIKELY = 3.0
"""A point whose own spread is so many times the common one is no point of it, and its own counts."""


@dataclass(frozen=True)
class Comparison:
    """A point's metric over its seeds, and as a ratio to that of the first point."""

    mean: float
    spread: float | None
    """Standard deviation over the seeds."""
    ratio: float
    low: float
    high: float
    """The ratio's interval of 2 standard errors."""
    failed: int = 0
    """Runs that did not end, of which the mean knows nothing."""

    @property
    def verdict(self) -> str:
        """Whether it is "better" or "worse"; "" where the interval holds 1, or where a run failed that is not worse."""
        if self.low > 1:
            return "worse"
        return "better" if self.high < 1 and not self.failed else ""


def values(point: dict[str, Any], metric: str) -> list[float]:
    """The metric of the point's finished runs."""
    return [run["metrics"][metric] for run in point["runs"] if metric in run["metrics"]]


def noise(points: list[dict[str, Any]], metric: str) -> float:
    """The standard deviation of the metric's logarithm between seeds: one number for all points.

    From the median of their variances, so that a point that fails in one seed of three does not hide the others; nan
    where no point has two seeds.
    """
    variances = [(spread**2, count - 1) for spread, count in (_spread(point, metric) for point in points) if count > 1]
    # The median of a variance of k degrees of freedom, in units of its mean (Wilson & Hilferty 1931).
    scaled = [variance / (1 - 2 / (9 * degrees)) ** 3 for variance, degrees in variances]
    return math.sqrt(statistics.median(scaled)) if scaled else math.nan


def _spread(point: dict[str, Any], metric: str) -> tuple[float, int]:
    """Standard deviation of the metric's logarithm over the seeds, and how many there are."""
    logs = [math.log(value) for value in values(point, metric) if value > 0]
    return (statistics.stdev(logs) if len(logs) > 1 else math.nan), len(logs)


def compare(points: list[dict[str, Any]], metric: str) -> dict[str, Comparison]:
    """Each point with finished runs against the first; metrics are positive, and lower is better."""
    common, base = noise(points, metric), values(points[0], metric)
    found = {}
    for point in points:
        numbers = values(point, metric)
        if not (numbers and base) or min(*numbers, *base) <= 0:
            continue
        centre = statistics.fmean(map(math.log, numbers)) - statistics.fmean(map(math.log, base))
        own, count = _spread(point, metric)
        sigma = own if count > 1 and own > UNLIKELY * common else common
        # The first point is compared with itself: no doubt about that.
        error = 0.0 if point is points[0] else 2 * math.sqrt(sigma**2 / len(numbers) + common**2 / len(base))
        found[point["name"]] = Comparison(
            statistics.fmean(numbers),
            statistics.stdev(numbers) if len(numbers) > 1 else None,
            math.exp(centre),
            math.exp(centre - error),
            math.exp(centre + error),
            sum(run["state"] != "done" for run in point["runs"]),
        )
    return found
