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
    """The ratio's interval of 95 %."""
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
    """The standard deviation of the metric's logarithm between seeds, beside their luck: one number for all points.

    From the median of their variances, so that a point that fails in one seed of three does not hide the others; nan
    where no point has two seeds.
    """
    luck = _Luck(points, metric)
    variances = [(luck.spread(point) ** 2, len(luck.logs(point)) - 1) for point in points if len(luck.logs(point)) > 1]
    # The median of a variance of k degrees of freedom, in units of its mean (Wilson & Hilferty 1931).
    scaled = [variance / (1 - 2 / (9 * degrees)) ** 3 for variance, degrees in variances]
    return math.sqrt(statistics.median(scaled)) if scaled else math.nan


class _Luck:
    """What a seed does to the metric's logarithm at all points alike: its first weights, its order of the data.

    The median over the points of their difference from their mean; 0 where fewer than two points have all seeds.
    """

    def __init__(self, points: list[dict[str, Any]], metric: str) -> None:
        self.metric = metric
        every = [self._raw(point) for point in points]
        seeds = set().union(*every)
        whole = [logs for logs in every if set(logs) == seeds] if len(seeds) > 1 else []
        known = len(whole) > 1
        centred = [{seed: log - statistics.fmean(logs.values()) for seed, log in logs.items()} for logs in whole]
        self.of_seed = {seed: statistics.median(logs[seed] for logs in centred) if known else 0.0 for seed in seeds}
        self.widening = math.sqrt(len(whole) / (len(whole) - 1)) if known else 1.0
        """What is left of a spread is too small: each point had its share in the median."""
        degrees = (len(whole) - 1) * (len(seeds) - 1) if known else sum(max(len(logs) - 1, 0) for logs in every)
        self.errors = student(max(degrees, 1))
        """Standard errors in an interval of 95 %."""

    def logs(self, point: dict[str, Any]) -> list[float]:
        """The metric's logarithms without the luck of their seeds."""
        return [log - self.of_seed[seed] for seed, log in self._raw(point).items()]

    def spread(self, point: dict[str, Any]) -> float:
        """Their standard deviation, nan of a single one."""
        logs = self.logs(point)
        return self.widening * statistics.stdev(logs) if len(logs) > 1 else math.nan

    def _raw(self, point: dict[str, Any]) -> dict[int, float]:
        runs = (run for run in point["runs"] if run["metrics"].get(self.metric, 0.0) > 0)
        return {run["seed"]: math.log(run["metrics"][self.metric]) for run in runs}


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t with so many degrees of freedom (Abramowitz & Stegun 1964, 26.7.5)."""
    z = statistics.NormalDist().inv_cdf(0.975)
    corrections = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(value / degrees**power for power, value in enumerate(corrections, 1))


def compare(points: list[dict[str, Any]], metric: str) -> dict[str, Comparison]:
    """Each point with finished runs against the first; metrics are positive, and lower is better."""
    luck, common, base = _Luck(points, metric), noise(points, metric), values(points[0], metric)
    found = {}
    for point in points:
        numbers = values(point, metric)
        if not (numbers and base) or min(*numbers, *base) <= 0:
            continue
        centre = statistics.fmean(luck.logs(point)) - statistics.fmean(luck.logs(points[0]))
        own = luck.spread(point)
        sigma = own if own > UNLIKELY * common else common
        # The first point is compared with itself: no doubt about that.
        error = 0.0 if point is points[0] else luck.errors * math.sqrt(sigma**2 / len(numbers) + common**2 / len(base))
        found[point["name"]] = Comparison(
            statistics.fmean(numbers),
            statistics.stdev(numbers) if len(numbers) > 1 else None,
            math.exp(centre),
            math.exp(centre - error),
            math.exp(centre + error),
            sum(run["state"] != "done" for run in point["runs"]),
        )
    return found
