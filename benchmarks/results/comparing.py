"""Comparing the points of an experiment with its first one, in spite of few seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

MEDIAN_OF_CHI_SQUARE = {1: 0.455, 2: 0.693, 3: 0.789, 4: 0.839}
"""The median of a variance of so many degrees of freedom, in units of its mean."""


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

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "" where the interval holds 1."""
        return "better" if self.high < 1 else "worse" if self.low > 1 else ""


def values(point: dict[str, Any], metric: str) -> list[float]:
    """The metric of the point's finished runs."""
    return [run["metrics"][metric] for run in point["runs"] if metric in run["metrics"]]


def noise(points: list[dict[str, Any]], metric: str) -> float:
    """The standard deviation of the metric's logarithm between seeds: one number for all points.

    From the median of their variances, so that a point that fails in one seed of three does not hide the others.
    """
    logs = [[math.log(value) for value in found if value > 0] for found in (values(p, metric) for p in points)]
    variances = [(statistics.variance(row), len(row) - 1) for row in logs if len(row) > 1]
    if not variances:
        return math.nan
    scaled = [variance / MEDIAN_OF_CHI_SQUARE.get(degrees, 1.0) for variance, degrees in variances]
    return math.sqrt(statistics.median(scaled))


def compare(points: list[dict[str, Any]], metric: str) -> dict[str, Comparison]:
    """Each point with finished runs against the first; metrics are positive, and lower is better."""
    sigma, base = noise(points, metric), values(points[0], metric)
    found = {}
    for point in points:
        numbers = values(point, metric)
        if not (numbers and base) or min(*numbers, *base) <= 0:
            continue
        centre = statistics.fmean(map(math.log, numbers)) - statistics.fmean(map(math.log, base))
        # The first point is compared with itself: no doubt about that.
        error = 0.0 if point is points[0] else 2 * sigma * math.sqrt(1 / len(numbers) + 1 / len(base))
        found[point["name"]] = Comparison(
            statistics.fmean(numbers),
            statistics.stdev(numbers) if len(numbers) > 1 else None,
            math.exp(centre),
            math.exp(centre - error),
            math.exp(centre + error),
        )
    return found
