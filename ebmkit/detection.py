"""Out-of-distribution detection: how well the energy alone tells other images from the model's own data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ebmkit.errors import BadInput
from ebmkit.model import Model
from ebmkit.model_images import Progress, check_time_step, energies_of, read_images, shards_of
from ebmkit.noise import generator
from ebmkit.sampling import from_uint8

NOISE = "noise"
"""What is given for shards to compare with `N(0, I)`, with which sweeps start."""
QUANTILE = 1.959963984540054
"""Of the normal distribution, for intervals of 95 %."""
ACCEPTED = 0.95
"""The share of the data that the threshold of `fpr_at_95_tpr` accepts."""


def auroc(data: Tensor, other: Tensor) -> float:
    """The area under the ROC curve, `P(other > data) + P(other = data) / 2`, of energies `data[M]` and `other[N]`.

    Exact, ties included: the statistic of Mann and Whitney, over `M N`.
    """
    from sklearn.metrics import roc_auc_score

    scores = torch.cat([data, other]).numpy()
    labels = torch.cat([torch.zeros(len(data)), torch.ones(len(other))]).numpy()
    return float(roc_auc_score(labels, scores))


def auroc_interval(value: float, data: int, other: int) -> tuple[float, float]:
    """The 95 % interval of an AUROC `value` of `data` and `other` images; never of width 0, not even at 1.

    All areas `A` with `|value - A| <= 1.96 sd(A)`, by the variance of Hanley & McNeil (1982) with the mean number of
    images in both brackets (Newcombe 2006, method 5).
    """
    half = (data + other) / 2 - 1

    def within(area: float) -> bool:
        spread = 1 + half * (1 - area) / (2 - area) + half * area / (1 + area)
        return abs(value - area) <= QUANTILE * math.sqrt(area * (1 - area) * spread / (data * other))

    def edge(end: float) -> float:
        inside, outside = value, end
        if not 0 < value < 1:
            # There the variance is 0, and the set's interior begins beside it.
            inside = value + (end - value) * 1e-12
        if end == value or not within(inside):
            return value
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if within(middle) else (inside, middle)
        return inside

    return edge(0.0), edge(1.0)


def false_positive_rate(data: Tensor, other: Tensor) -> float:
    """The share of `other[N]` that the lowest energy threshold accepts which accepts 95 % of `data[M]`."""
    threshold = data.sort().values[math.ceil(ACCEPTED * len(data)) - 1]
    return float((other <= threshold).double().mean())


def detect(
    model: Model,
    against: str,
    data: str | None = None,
    t: int = 1,
    limit: int | None = None,
    resize: bool = False,
    seed: int = 0,
    batch_size: int = 256,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """The AUROC of the energy at `t` between the shards `data` and the shards `against`, or "noise".

    Raises `BadInput` for a time step or shards that cannot be used. `resize` fits images of `against` to the model.
    """
    check_time_step(model, t)
    if data is None:
        say(
            "warning: these are images that the model was trained on, to which it gives lower energies than to others; "
            "name held-out shards by --data"
        )
    own_shards = shards_of(model, data)
    own = from_uint8(read_images(own_shards, limit, say))
    if against == NOISE:
        noise = generator("cpu", seed, "ood")
        other = torch.randn(own.shape, generator=noise)
    else:
        other = from_uint8(read_images(shards_of(model, against, resize), limit, say))
    if min(len(own), len(other)) < 2:
        raise BadInput("fewer than two images on one side: there is nothing to compare")
    total = len(own) + len(other)
    of_own = energies_of(model, own, t, batch_size, lambda done, _: progress(done, total))
    of_other = energies_of(model, other, t, batch_size, lambda done, _: progress(len(own) + done, total))
    area = auroc(of_own, of_other)
    return {
        "auroc": area,
        "interval": list(auroc_interval(area, len(own), len(other))),
        "fpr_at_95_tpr": false_positive_rate(of_own, of_other),
        "t": t,
        "data": " ".join(own_shards.patterns),
        "held_out": data is not None,
        "images": len(own),
        "energy": _moments(of_own),
        "against": against,
        "against_images": len(other),
        "against_energy": _moments(of_other),
        "seed": seed,
    }


def _moments(energies: Tensor) -> dict[str, float]:
    return {"mean": float(energies.mean()), "std": float(energies.std())}
