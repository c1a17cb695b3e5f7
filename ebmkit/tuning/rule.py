"""The search for a step size: which to try next, which to take, and why.

Appendix A.1 tunes eta "so that the energy of generated samples is slightly below the energy of real images" at the end
of a sweep. The `gap` of a trial is the mean energy of real images minus that of samples, in standard deviations of the
energy of real images: negative where a sweep stops short of the data, large where it goes far past it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOWEST, TARGET, HIGHEST = 0.0, 0.8, 1.5
"""Gaps that count as "slightly below", and the one that is aimed at."""
FACTOR = 1.25
"""Between one trial and the next, while all are on the same side."""
FINEST = 1.04
"""Step sizes nearer to each other than this factor are the same to runs this short."""


@dataclass(frozen=True)
class Trial:
    """A step size that was tried: energies at t = 1 after a sweep, mean over images and seeds.

    `gap` is infinite where training did not stay finite.
    """

    step_size: float
    why: str
    gap: float
    """(energy of real images - energy of samples) / (standard deviation over real images), the mean over seeds."""
    spread: float = 0.0
    """The standard deviation of the gap over seeds; 0 for one seed."""
    energy_data: float = math.nan
    energy_samples: float = math.nan
    seconds: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether the samples' energy is slightly below that of real images."""
        return LOWEST < self.gap <= HIGHEST

    @property
    def verdict(self) -> str:
        """What the gap says, in words."""
        if math.isinf(self.gap):
            return "training does not stay finite: too far"
        if self.gap <= LOWEST:
            return "samples above real images: a sweep stops short"
        return "slightly below: fits" if self.fits else "far below: a sweep goes too far"


def next_step_size(trials: Sequence[Trial]) -> tuple[float, str] | None:
    """The step size to try after these and the reason, or None where the search is over; needs at least one trial."""
    if any(trial.fits for trial in trials):
        return None
    short = max((trial for trial in trials if trial.gap <= LOWEST), key=lambda t: t.step_size, default=None)
    far = min((trial for trial in trials if trial.gap > HIGHEST), key=lambda t: t.step_size, default=None)
    if far is None and short is not None:
        return rounded(short.step_size * FACTOR), f"larger: {short.step_size:g} stops short"
    if short is None and far is not None:
        return rounded(far.step_size / FACTOR), f"smaller: {far.step_size:g} goes too far"
    if short is None or far is None or far.step_size / short.step_size < FINEST:
        return None
    return rounded(_between(short, far)), f"between {short.step_size:g}, too short, and {far.step_size:g}, too far"


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial that fits, or the one nearest to it; None where no training stayed finite."""
    finite = [trial for trial in trials if math.isfinite(trial.gap)]
    # Of equals the latest: the search comes nearer.
    return min(reversed(finite), key=lambda trial: (not trial.fits, abs(trial.gap - TARGET)), default=None)


def rounded(value: float) -> float:
    """Three digits: more than runs can tell apart."""
    return float(f"{value:.3g}")


def _between(short: Trial, far: Trial) -> float:
    """Where a straight line through both, over the logarithm of the step size, has the target."""
    share = 0.5
    if math.isfinite(far.gap):
        # Not too near to either: the line is only a guess.
        share = min(max((TARGET - short.gap) / (far.gap - short.gap), 0.2), 0.8)
    low, high = math.log(short.step_size), math.log(far.step_size)
    # A trial with a larger step size may stop short, too, by chance: the search then narrows from there.
    return math.exp(low + share * (high - low))
