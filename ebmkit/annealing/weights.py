"""Annealed importance sampling itself, forward from the base and backward from given images."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ebmkit.annealing.bridge import Energy, GaussianBase, State, state_at
from ebmkit.annealing.hamiltonian import transition
from ebmkit.annealing.path import Path, Progress


class Annealed(NamedTuple):
    """Chains that went along the whole path."""

    log_weights: Tensor
    """`[N]` float64; forward, the mean of `exp` of them is an unbiased estimate of the normalising constant."""
    x: Tensor
    """Where they ended, `[N, C, H, W]`."""
    acceptance: float
    """The mean probability of acceptance."""


class LogPartition(NamedTuple):
    """An estimate of `log Z`, `Z` the integral of `exp(-f)`."""

    value: float
    error: float
    """Its standard error, by the delta method; meaningless where `effective` is small."""
    effective: float
    """The effective sample size, `(sum w)^2 / sum w^2`, between 1 and the number of chains."""
    lower_bound: float
    """The mean log weight, which in expectation is not above `log Z` (Jensen's inequality)."""


def anneal(
    energy: Energy,
    base: GaussianBase,
    path: Path,
    count: int,
    leaps: int,
    generator: torch.Generator,
    progress: Progress = lambda done, total: None,
) -> Annealed:
    """`count` chains from the base to the model (Neal 2001, eq. 11)."""
    state, accepted = state_at(energy, base, base.sample(count, generator)), 0.0
    log_weights = torch.zeros_like(state.energy)
    stops = len(path.betas) - 1
    for k in range(stops):
        log_weights = log_weights + (path.betas[k + 1] - path.betas[k]) * state.slope
        state, probability = _at(energy, base, path, k + 1, state, leaps, generator)
        accepted += float(probability.mean())
        progress((k + 1) * leaps * count, stops * leaps * count)
    return Annealed(log_weights, state.x, accepted / stops)


def anneal_back(
    energy: Energy,
    base: GaussianBase,
    path: Path,
    x: Tensor,
    leaps: int,
    generator: torch.Generator,
    progress: Progress = lambda done, total: None,
) -> Annealed:
    """The same path backwards from images `x[N, C, H, W]`, a chain for each (Burda, Grosse & Salakhutdinov 2015).

    `-f(x) - log_weight` is, in expectation, not above the log density at `x` of what the forward chains draw. Where `x`
    are exact draws of the model, the mean log weight is not below `log Z` (Grosse et al. 2015).
    """
    state, accepted = state_at(energy, base, x), 0.0
    log_weights = torch.zeros_like(state.energy)
    stops = len(path.betas) - 1
    for k in range(stops - 1, -1, -1):
        # Each transition is its own reversal: it meets detailed balance.
        state, probability = _at(energy, base, path, k + 1, state, leaps, generator)
        log_weights = log_weights + (path.betas[k + 1] - path.betas[k]) * state.slope
        accepted += float(probability.mean())
        progress((stops - k) * leaps * len(x), stops * leaps * len(x))
    return Annealed(log_weights, state.x, accepted / stops)


def log_partition(log_weights: Tensor) -> LogPartition:
    """The estimate of `log Z` from forward chains' log weights `[N]`."""
    count = len(log_weights)
    value = float(log_weights.logsumexp(0)) - math.log(count)
    effective = float((2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp())
    error = math.sqrt(max(0.0, 1 / effective - 1 / count))
    return LogPartition(value, error, effective, float(log_weights.mean()))


def _at(
    energy: Energy, base: GaussianBase, path: Path, k: int, state: State, leaps: int, generator: torch.Generator
) -> tuple[State, Tensor]:
    return transition(energy, base, path.betas[k], state, path.steps[k], leaps, generator)
