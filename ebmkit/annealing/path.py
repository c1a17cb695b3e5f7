"""Where on the path the chains stop, and how far they step there; found once by a pilot, then fixed.

Estimates stay exact only if neither depends on the chains that are weighted: the pilot's own chains are thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from ebmkit.annealing.bridge import Energy, GaussianBase, State, state_at
from ebmkit.annealing.hamiltonian import transition
from ebmkit.errors import BadInput

ACCEPTANCE = 0.8
"""What step sizes aim at."""
PILOT_LENGTH = 1.0
"""Standard deviation of a log weight's increment between the pilot's stops."""
PILOT_TRANSITIONS = 4
"""At each of the pilot's stops; the step size moves after each."""

Progress = Callable[[int, int | None], None]
"""Called with (gradient evaluations of an image done, all of them or None)."""


class Path(NamedTuple):
    """`betas` from 0 to 1, and the leapfrog step at each."""

    betas: tuple[float, ...]
    steps: tuple[float, ...]


def find_path(
    energy: Energy,
    base: GaussianBase,
    stops: int,
    chains: int,
    leaps: int,
    generator: torch.Generator,
) -> Path:
    """`stops` steps of equal thermodynamic length, the integral of `std(d log p_beta / d beta)` over `beta`.

    That is the spacing of least variance (Gelman & Meng 1998). Raises `BadInput` where an energy is not finite.
    """
    state = state_at(energy, base, base.sample(chains, generator))
    beta, step = 0.0, base.deviation * min(1.0, 2 / math.sqrt(math.sqrt(state.x[0].numel())))
    seen: list[tuple[float, float, float]] = []
    for left in range(stops, -1, -1):
        state, step = _settle(energy, base, beta, state, step, leaps, generator)
        deviation = float(state.slope.std())
        if not math.isfinite(deviation):
            raise BadInput("the model's energy is not finite near the images; there is no likelihood to estimate")
        seen.append((beta, deviation, step))
        if beta == 1:
            break
        # However steep the energy is, the pilot ends in time.
        beta = min(1.0, beta + max(PILOT_LENGTH / max(deviation, 1e-9), (1 - beta) / left))
    return _placed(seen, stops)


def _settle(
    energy: Energy,
    base: GaussianBase,
    beta: float,
    state: State,
    step: float,
    leaps: int,
    generator: torch.Generator,
) -> tuple[State, float]:
    for _ in range(PILOT_TRANSITIONS):
        state, probability = transition(energy, base, beta, state, step, leaps, generator)
        step *= math.exp(float(probability.mean()) - ACCEPTANCE)
    return state, step


def _placed(seen: list[tuple[float, float, float]], stops: int) -> Path:
    betas, deviations, steps = np.array(seen).T
    # An energy that is the base itself has no length anywhere: evenly, then.
    lengths = np.diff(betas) * ((deviations[1:] + deviations[:-1]) / 2 + 1e-9)
    length = np.concatenate([[0.0], np.cumsum(lengths)])
    placed = np.interp(np.linspace(0, length[-1], stops + 1), length, betas)
    placed[0], placed[-1] = 0.0, 1.0
    return Path(tuple(placed.tolist()), tuple(np.exp(np.interp(placed, betas, np.log(steps))).tolist()))
