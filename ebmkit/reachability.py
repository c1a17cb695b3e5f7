"""The reachability rule: can a sweep travel as far as the data lies from the start noise?

Where the penalty keeps the gradient norm at `g`, a sweep travels at most `g * sum(eta / 2)`. It has to cover about
`sqrt(D * (1 + S + m))`: the start noise, all the noise that the sampler adds (`S = sum(sigma^2)`), and the data's own
second moment `m` per pixel. The ratio of the two is near 1 where a recipe works (`docs/method.md`).
"""

from __future__ import annotations

import math

DATA_SECOND_MOMENT = 0.27
"""`E||x_0||^2 / D` of photographs scaled to [-1, 1]: 0.25 to 0.3 for CIFAR-10 and the like; it matters little."""

LOWEST, HIGHEST = 0.8, 1.6
"""Ratios outside of this range are warned about: far below cannot reach the data, far above overshoots."""


def distance_to_cover(dimensions: int, noise: float) -> float:
    """`sqrt(D * (1 + S + m))` for images of `dimensions` D and a sampler that adds `noise` S per pixel."""
    return math.sqrt(dimensions * (1.0 + noise + DATA_SECOND_MOMENT))


def reach_ratio(travel: float, noise: float, dimensions: int, gradient_norm: float) -> float:
    """What a sweep can travel at this gradient norm, divided by what it has to cover."""
    return travel * gradient_norm / distance_to_cover(dimensions, noise)


def step_size_for(ratio: float, steps: int, noise: float, dimensions: int, gradient_norm: float) -> float:
    """The constant step size `eta` with which `steps` = T*K steps reach the wanted ratio."""
    return ratio * distance_to_cover(dimensions, noise) / (gradient_norm * steps / 2)
