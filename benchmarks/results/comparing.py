"""Comparing the points of an experiment with its first one, in spite of few seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

UNLIKELY = 3.0
"""A point whose own spread is more than so many times the common one is no point of it, and its own counts."""
FEW = 5
"""Of fewer numbers than that the mean is taken, not the median: that of three is one of them, with no spread left."""


@dataclass(frozen=True)
class Comparison:
    """A point's metric over its seeds, and as a ratio to that of the first point."""

    mean: float
    spread: float | None
    """Standard deviation over the seeds."""
    ratio: float
    low: float
    high: float
    """The ratio's interval of 95 %; nan where no point has two seeds."""
    failed: int = 0
    """Runs that did not end, of which the mean knows nothing."""

    @property
    def verdict(self) -> str:
        """Whether it is "better" or "worse"; "" where the interval holds 1, or where a run failed that is not worse."""
        if self.low > 1:
            return "worse"
        return "better" if self.high < 1 and not self.failed else ""


def values(point: dict[str, Any], metric: str) -> list[float]:
    """The metric of the point's finished runs, where it is a number."""
    found = (run["metrics"].get(metric, math.nan) for run in point["runs"])
    return [value for value in found if math.isfinite(value)]


def noise(points: list[dict[str, Any]], metric: str) -> float:
    """The standard deviation of the metric's logarithm from seed to seed, beside their luck: one number for all points.

    From the median of their variances, so that a point that fails in one seed of three does not hide the others; nan
    where no point has two seeds.
    """
    return _Logs(points, metric).noise


class _Logs:
    """The metric's logarithms in two parts: what is the point's, and what a seed does to all points alike, its luck.

    A point's part is the mean over its seeds of what luck leaves, a seed's luck the median over its points of what they
    leave (Tukey's median polish 1977, with one mean). A point with a single seed knows nothing of luck.
    """

    def __init__(self, points: list[dict[str, Any]], metric: str) -> None:
        self.of_point = {point["name"]: _logs(point, metric) for point in points}
        repeated = [logs for logs in self.of_point.values() if len(logs) > 1]
        seeds = set().union(*repeated)
        free = sum(len(logs) - 1 for logs in repeated)
        self.degrees = free - (len(seeds) - 1)
        """Degrees of freedom of the noise."""
        self.luck = dict.fromkeys(set().union(*self.of_point.values()), 0.0)
        known = self.degrees > 0 and len(repeated) > 1
        for _ in range(10 if known else 0):
            self._polish(repeated, seeds)
        # What is left is too small: every point had a share in the luck.
        self.widening = math.sqrt(free / self.degrees) if known else 1.0
        self.degrees = self.degrees if known else free
        self.noise = self._noise(repeated)

    def _polish(self, repeated: list[dict[int, float]], seeds: set[int]) -> None:
        left: dict[int, list[float]] = {seed: [] for seed in seeds}
        for logs in repeated:
            centre = statistics.fmean(log - self.luck[seed] for seed, log in logs.items())
            for seed, log in logs.items():
                left[seed].append(log - centre)
        self.luck |= {seed: _middle(found) for seed, found in left.items()}

    def _noise(self, repeated: list[dict[int, float]]) -> float:
        variances = [(self.spread(logs) ** 2, len(logs) - 1) for logs in repeated]
        if not variances:
            return math.nan
        if len(variances) < FEW:
            return math.sqrt(sum(v * degrees for v, degrees in variances) / sum(degrees for _, degrees in variances))
        # The median of a variance of k degrees of freedom, in units of its mean (Wilson & Hilferty 1931).
        return math.sqrt(statistics.median(v / (1 - 2 / (9 * degrees)) ** 3 for v, degrees in variances))

    def without_luck(self, logs: dict[int, float]) -> list[float]:
        return [log - self.luck[seed] for seed, log in logs.items()]

    def spread(self, logs: dict[int, float]) -> float:
        return self.widening * statistics.stdev(self.without_luck(logs)) if len(logs) > 1 else math.nan

    def error(self, logs: dict[int, float]) -> tuple[float, float]:
        """The variance of a point's mean, and its degrees of freedom."""
        own = self.spread(logs)
        if own > UNLIKELY * self.noise:
            return own**2 / len(logs), len(logs) - 1
        return self.noise**2 / len(logs), self.degrees


def _logs(point: dict[str, Any], metric: str) -> dict[int, float]:
    found = {run["seed"]: run["metrics"].get(metric, math.nan) for run in point["runs"]}
    return {seed: math.log(value) for seed, value in found.items() if math.isfinite(value) and value > 0}


def _middle(numbers: list[float]) -> float:
    return statistics.fmean(numbers) if len(numbers) < FEW else statistics.median(numbers)


def student(degrees: float) -> float:
    """The 97.5 % quantile of Student's t; above two degrees of freedom by Abramowitz & Stegun 1964, 26.7.5."""
    if degrees <= 1:
        return math.tan(0.475 * math.pi)
    if degrees <= 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z = statistics.NormalDist().inv_cdf(0.975)
    corrections = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(value / degrees**power for power, value in enumerate(corrections, 1))


def compare(points: list[dict[str, Any]], metric: str) -> dict[str, Comparison]:
    """Each point with finished runs against the first; metrics are positive, and lower is better."""
    logs, base = _Logs(points, metric), values(points[0], metric)
    found = {}
    for point in points:
        numbers, mine, first = values(point, metric), logs.of_point[point["name"]], logs.of_point[points[0]["name"]]
        if not (numbers and base) or min(*numbers, *base) <= 0:
            continue
        centre = statistics.fmean(logs.without_luck(mine)) - statistics.fmean(logs.without_luck(first))
        # The first point is compared with itself: no doubt about that.
        error = 0.0 if point is points[0] else _half_width(logs.error(mine), logs.error(first))
        found[point["name"]] = Comparison(
            statistics.fmean(numbers),
            statistics.stdev(numbers) if len(numbers) > 1 else None,
            math.exp(centre),
            math.exp(centre - error),
            math.exp(centre + error),
            sum(run["state"] != "done" for run in point["runs"]),
        )
    return found


def _half_width(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Of the interval of 95 % of a difference of two means, each a variance and its degrees of freedom.

    Two that have the common noise have its degrees; else Welch's (1947).
    """
    (v, n), (w, m) = one, other
    if not v + w > 0:
        return v + w
    degrees = n if n == m else (v + w) ** 2 / (v**2 / n + w**2 / m)
    return student(degrees) * math.sqrt(v + w)
