"""From features to the numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ebmkit.errors import BadInput
from ebmkit.metrics import fidelity, gaussian, statistics
from ebmkit.metrics.names import NETWORK_COUNT, PIXEL_FEATURES, STATISTICS, Metric
from ebmkit.metrics.networks import Features
from ebmkit.noise import generator

LEAST = {
    "frechet_distance": 2,
    "kid": 2,
    "inception_score": fidelity.IS_SPLITS,
    "precision": fidelity.NEIGHBOURS + 1,
    "recall": fidelity.NEIGHBOURS + 1,
    **dict.fromkeys(STATISTICS, 2),
}
"""How many images of each side a number needs to exist at all."""


def require_enough(metrics: Sequence[Metric], samples: int, images: int | None = None) -> None:
    """Raise `BadInput` where there are too few samples, or too few real `images`, for one of the metrics."""
    for metric in metrics:
        least = LEAST[metric.what]
        if samples < least:
            raise BadInput(f"{metric.name} needs at least {least} samples: --count {least} or more")
        if images is not None and images < least and metric.what != "inception_score":
            raise BadInput(f"{metric.name} needs at least {least} real images, and the data has {images}")


def remark(metrics: Sequence[Metric], samples: int) -> str | None:
    """What to keep in mind of numbers from so few samples, or None."""
    names = [metric.name for metric in metrics if metric.features != PIXEL_FEATURES]
    if not names or samples >= NETWORK_COUNT:
        return None
    return (
        f"{', '.join(names)}: of {samples:,} samples; the literature takes {NETWORK_COUNT:,}. Fréchet distances of "
        "fewer are larger: compare only those of equally many"
    )


def compare(
    metrics: Sequence[Metric],
    samples: Features,
    real: Features,
    shape: tuple[int, int, int],
    device: str,
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """The metrics' numbers by their names, of images of this `shape` (C, H, W)."""
    shares: dict[str, tuple[float, float]] = {}
    found: dict[str, float] = {}
    for done, metric in enumerate(metrics):
        progress(done, len(metrics))
        drawn, data = samples[metric.features], real.get(metric.features)
        if metric.what == "inception_score":
            found[metric.name] = fidelity.inception_score(drawn)
            continue
        assert data is not None
        if metric.what in STATISTICS:
            images = drawn.view(-1, *shape), data.view(-1, *shape)
            found[metric.name] = getattr(statistics, metric.what)(*images)
        elif metric.what == "frechet_distance":
            found[metric.name] = gaussian.frechet_distance(drawn, data)
        elif metric.what == "kid":
            found[metric.name] = fidelity.kid(drawn, data)
        else:
            # Both at once cost as much as one of them.
            if metric.features not in shares:
                shares[metric.features] = fidelity.precision_recall(drawn, data, device)
            found[metric.name] = shares[metric.features][metric.what == "recall"]
    return found


def require_floor(count: int, images: int) -> None:
    """Raise `BadInput` where the real `images` are too few to take `count` of them as if they were samples."""
    if images < 2 * count:
        raise BadInput(
            f"--floor compares {count} real images with the other ones, and the data has {images}: use at most "
            f"half of them, --count {images // 2}"
        )


def floor(
    metrics: Sequence[Metric],
    real: Features,
    count: int,
    seed: int,
    shape: tuple[int, int, int],
    device: str,
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """What `count` real images, drawn by `seed`, have against the other ones: images as good as unseen real ones.

    Metrics without real images are left out.
    """
    measured = [metric for metric in metrics if metric.features in real]
    if not measured:
        return {}
    order = torch.randperm(len(next(iter(real.values()))), generator=generator("cpu", seed, "floor"))
    samples = {name: features[order[:count]] for name, features in real.items()}
    others = {name: features[order[count:]] for name, features in real.items()}
    return compare(measured, samples, others, shape, device, progress)
