"""What a training step and a sweep call of components: what they raise is told with their name, and what they give back
is held against their interface, so that a fault is found where it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ebmkit.blame import blamed_on, wrong
from ebmkit.interfaces import (
    Buffer,
    Chains,
    Component,
    Draw,
    EnergyFunction,
    NoiseSource,
    Objective,
    Pairs,
    Regularizer,
    Sampler,
    Term,
)


def refine(sampler: Sampler, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
    """`sampler.refine`: images of the shape, type and device of `x`."""
    with blamed_on(sampler, "refine()"):
        refined = sampler.refine(energy, x, t, noise)
    if not isinstance(refined, Tensor) or _like(refined) != _like(x):
        raise wrong(sampler, f"refine() was given {_told(x)} and must return as much, not {_told(refined)}")
    return refined


def draw(buffer: Buffer, n: int, random: torch.Generator) -> Draw:
    """`buffer.draw`."""
    with blamed_on(buffer, "draw()"):
        drawn = buffer.draw(n, random)
    if not isinstance(drawn, Draw):
        raise wrong(buffer, f"draw() must return an ebmkit.Draw, not {_told(drawn)}")
    return drawn


def restart(buffer: Buffer, drawn: Draw, bad: Tensor, random: torch.Generator) -> Draw:
    """`buffer.restart`: as many chains as were drawn."""
    with blamed_on(buffer, "restart()"):
        restarted = buffer.restart(drawn, bad, random)
    if not isinstance(restarted, Draw) or _like(restarted.x) != _like(drawn.x):
        raise wrong(
            buffer, f"restart() was given an ebmkit.Draw and must return one of that shape, not {_told(restarted)}"
        )
    return restarted


def store(buffer: Buffer, slots: Tensor, x: Tensor) -> None:
    """`buffer.store`."""
    with blamed_on(buffer, "store()"):
        buffer.store(slots, x)


class Saved:
    """A buffer as a checkpoint takes it."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer

    def state_dict(self) -> Mapping[str, Any]:
        """`buffer.state_dict`."""
        with blamed_on(self.buffer, "state_dict()"):
            state: object = self.buffer.state_dict()
        if not isinstance(state, Mapping):
            raise wrong(self.buffer, f"state_dict() must return a dictionary, not {_told(state)}")
        return state


def pairs(
    objective: Objective,
    energy: EnergyFunction,
    x_pos: Tensor,
    labels: Tensor | None,
    chains: Chains,
    random: torch.Generator,
) -> Pairs:
    """`objective.pairs`."""
    with blamed_on(objective, "pairs()"):
        chosen = objective.pairs(energy, x_pos, labels, chains, random)
    if not isinstance(chosen, Pairs):
        raise wrong(objective, f"pairs() must return ebmkit.Pairs, not {_told(chosen)}")
    return chosen


def loss(objective: Objective, compared: Pairs) -> Term:
    """`objective.loss`."""
    with blamed_on(objective, "loss()"):
        term = objective.loss(compared)
    return _checked(objective, "loss()", term)


def penalty(regularizer: Regularizer, compared: Pairs, random: torch.Generator) -> Term | None:
    """`regularizer.penalty`."""
    with blamed_on(regularizer, "penalty()"):
        term = regularizer.penalty(compared, random)
    return None if term is None else _checked(regularizer, "penalty()", term)


def _checked(component: Component, what: str, term: Term) -> Term:
    if not isinstance(term, Term):
        raise wrong(component, f"{what} must return an ebmkit.Term, not {_told(term)}")
    if not isinstance(term.value, Tensor) or term.value.ndim:
        raise wrong(component, f"the value of {what} must be a scalar tensor, not {_told(term.value)}")
    if not isinstance(term.metrics, Mapping):
        raise wrong(component, f"the metrics of {what} must be a mapping, not {_told(term.metrics)}")
    for name, value in term.metrics.items():
        # Types alone: to look at values would wait for the device.
        if not (isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)):
            raise wrong(component, f"the metric '{name}' of {what} must be a scalar tensor, not {_told(value)}")
    return term


def _like(x: Tensor) -> tuple[object, ...]:
    return x.shape, x.dtype, x.device


def _told(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')} on {value.device}"
