"""What a batch says of the state of training: a few numbers, and which of them are wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ebmkit.interfaces import Pairs
from ebmkit.watchdog.options import WatchdogOptions

LATE = 4
"""Chains in the last quarter of the time steps are late ones."""
SAME = 0.05
"""Two images are copies if they differ by less, in standard deviations of the data."""
FEWEST = 8
"""With fewer late chains nothing is said of them."""


@torch.no_grad()
def measure(pairs: Pairs, time_steps: int, bound: float | None) -> dict[str, float]:
    """Numbers of the batch; chains are those of the last quarter of the time steps. Waits for the device.

    `energy_gap` and `energy_range` are in units of sqrt(C * H * W) times the `bound` of the input gradient's norm.
    Where nothing bounds it, a bound of sqrt(C * H * W) is taken: 1 for each pixel.
    """
    x_pos, x_neg = pairs.x_pos.float().flatten(1), pairs.x_neg.float().flatten(1)
    size = x_pos.shape[1]
    unit = math.sqrt(size) * (math.sqrt(size) if bound is None else bound)
    positive, negative = (energy.detach().float() for energy in pairs.energies)
    centre = positive.mean()
    found = {
        "energy_gap": (negative.mean() - centre).abs() / unit,
        "energy_range": torch.cat((positive, negative)).sub(centre).abs().amax() / unit,
    }
    late = x_neg[pairs.t <= max(1, math.ceil(time_steps / LATE))]
    if len(late) >= FEWEST:
        scale = x_pos.var(0).mean().sqrt().clamp_min(1e-3)
        found |= {
            "spread": late.var(0).mean().sqrt() / scale,
            "duplicates": _copies(late, scale) - _copies(x_pos, scale),
            "saturation": _saturated(late) - _saturated(x_pos),
        }
    return {name: float(value) for name, value in found.items()}


def wrong(found: Mapping[str, float], options: WatchdogOptions) -> dict[str, str]:
    """What is wrong with these numbers, by symptom; a number that is not finite is wrong."""
    told = {
        "update": (
            0.0,
            options.max_update,
            "the learning rate is {value:.2g} times the root mean square of the weights (limit {limit:g})",
        ),
        "energy_gap": (
            0.0,
            options.gap_limit,
            "the mean energies of data and chains lie {value:.3g} times the usual bound apart (limit {limit:g})",
        ),
        "energy_range": (0.0, options.energy_limit, "an energy lies {value:.3g} times the usual bound from the data's"),
        "spread": (
            options.min_spread,
            options.max_spread,
            "the chains' spread is {value:.3g} times that of the data (limits {low:g} and {limit:g})",
        ),
        "duplicates": (-1.0, options.max_duplicates, "{value:.0%} more of the chains than of the data are copies"),
        "saturation": (
            -1.0,
            options.max_saturation,
            "{value:.0%} more pixels of the chains than of the data are at the limits of the range",
        ),
    }
    return {
        name: text.format(value=found[name], low=low, limit=limit)
        for name, (low, limit, text) in told.items()
        if name in found and not low <= found[name] <= limit
    }


def root_mean_square(weights: Sequence[Tensor]) -> float:
    """That of all values together; infinite for weights of zeros, which any update changes beyond measure."""
    norm = float(torch.nn.utils.get_total_norm([weight.detach() for weight in weights]))
    return norm / math.sqrt(sum(weight.numel() for weight in weights)) or math.inf


def _copies(x: Tensor, scale: Tensor) -> Tensor:
    """The share of rows that have a copy among the others."""
    distances = (torch.cdist(x, x) / math.sqrt(x.shape[1])).fill_diagonal_(torch.inf)
    return (distances.amin(1) < SAME * scale).float().mean()


def _saturated(x: Tensor) -> Tensor:
    """The share of values at the limits of [-1, 1], or beyond."""
    return (x.abs() >= 1).float().mean()
