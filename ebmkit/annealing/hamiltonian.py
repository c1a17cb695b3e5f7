"""Hamiltonian Monte Carlo (Duane et al. 1987) for a batch of chains, each accepted or rejected for itself."""

from __future__ import annotations

import torch
from torch import Tensor

from ebmkit.annealing.bridge import Energy, GaussianBase, State, state_at

JITTER = 0.2
"""Each transition's step is drawn from step * (1 -/+ this): orbits of a fixed length may close upon themselves."""


def transition(
    energy: Energy,
    base: GaussianBase,
    beta: float,
    state: State,
    step: float,
    leaps: int,
    generator: torch.Generator,
) -> tuple[State, Tensor]:
    """`leaps` leapfrog steps and Metropolis' test, which leave `p_beta` as it is and are their own reversal.

    Returns the new state and the probabilities of acceptance, `[N]`. It evaluates `leaps` gradients for each chain.
    """
    device = state.x.device
    jitter = float(torch.rand((), generator=generator, device=device))
    step *= 1 + JITTER * (2 * jitter - 1)
    momentum = torch.randn(state.x.shape, generator=generator, device=device)
    before = state.log_density(beta) - _kinetic(momentum)
    momentum = momentum + step / 2 * _force(state, base, beta)
    new = state
    for leap in range(leaps):
        x, momentum = _reflected(new.x + step * momentum, momentum, base.edge)
        new = state_at(energy, base, x)
        momentum = momentum + (step if leap < leaps - 1 else step / 2) * _force(new, base, beta)
    # A trajectory that ran away has no finite energy, and is refused.
    log_ratio = torch.nan_to_num(new.log_density(beta) - _kinetic(momentum) - before, nan=-torch.inf)
    probability = log_ratio.clamp(max=0).exp()
    accepted = torch.rand(len(probability), generator=generator, device=device, dtype=torch.float64) < probability
    return new.where(accepted, state), probability


def _reflected(x: Tensor, momentum: Tensor, edge: float | None) -> tuple[Tensor, Tensor]:
    """Where a free flight ends between the walls of the cube, which turn momenta round (Neal 2011, section 5.1)."""
    if edge is None:
        return x, momentum
    place = torch.remainder(x + edge, 4 * edge)
    back = place > 2 * edge
    return torch.where(back, 4 * edge - place, place) - edge, torch.where(back, -momentum, momentum)


def _force(state: State, base: GaussianBase, beta: float) -> Tensor:
    return -beta * state.gradient - (1 - beta) * (state.x - base.mean) / base.deviation**2


def _kinetic(momentum: Tensor) -> Tensor:
    return momentum.double().square().flatten(1).sum(1) / 2
