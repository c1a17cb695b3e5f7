"""The door to torch-fidelity: its networks, and its metrics of features. Nothing else of ebmkit imports it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from ebmkit.errors import BadInput
from ebmkit.metrics.names import OWN_FEATURES, PIXEL_FEATURES, Metric

KID_SUBSET = 1000
PRC_ROWS = 1000
"""Rows of the distance matrix at a time; 50,000 columns of them are 200 MB."""
NEIGHBOURS = 3
IS_SPLITS = 10


def needed(metrics: Sequence[Metric]) -> bool:
    """Whether any of these rests on torch-fidelity: all but pixels' statistics, and a plugin's Fréchet distance."""
    return any(
        m.features != PIXEL_FEATURES and (m.features != OWN_FEATURES or m.what != "frechet_distance") for m in metrics
    )


def require() -> None:
    """Raise `BadInput` where torch-fidelity is not installed."""
    if importlib.util.find_spec("torch_fidelity") is None:
        raise BadInput("these metrics need the package torch-fidelity: pip install 'ebmkit[metrics]'")


def fidelity_version() -> str:
    """The version of the installed torch-fidelity."""
    return version("torch-fidelity")


def network(name: str, layers: list[str], weights: str, device: str) -> Any:
    """One of torch-fidelity's networks, with weights from a file: uint8 RGB images to a tuple of features."""
    from torch_fidelity.utils import create_feature_extractor

    made = create_feature_extractor(name, layers, cuda=False, feature_extractor_weights_path=weights, verbose=False)
    return made.to(device)


def kid(samples: Tensor, real: Tensor) -> float:
    """Unbiased squared MMD with kernel `(x.y / D + 1)^3`, the mean over 100 subsets of 1000, or of all where fewer."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    size = min(KID_SUBSET, len(samples), len(real))
    # In float64: kernels of large features are so large that their small difference would be lost.
    found = kid_features_to_metric(samples.double(), real.double(), kid_subset_size=size, verbose=False)
    return float(found[KEY_METRIC_KID_MEAN])


def inception_score(logits: Tensor) -> float:
    """The mean over 10 parts of `exp(E KL(p(y | x) || p(y)))` (Salimans et al. 2016)."""
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    return float(isc_features_to_metric(logits, splits=IS_SPLITS)[KEY_METRIC_ISC_MEAN])


def precision_recall(samples: Tensor, real: Tensor, device: str = "cpu") -> tuple[float, float]:
    """The shares of samples near real images and of real images near samples, with 3 neighbours (Kynkäänniemi 2019)."""
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    with torch.no_grad():
        found = prc_features_to_metric(
            samples.to(device),
            real.to(device),
            prc_neighborhood=NEIGHBOURS,
            prc_batch_size=PRC_ROWS,
            save_cpu_ram=True,
            verbose=False,
        )
    return float(found[KEY_METRIC_PRECISION]), float(found[KEY_METRIC_RECALL])
