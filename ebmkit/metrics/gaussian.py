"""Gaussians fitted to features, and the Fréchet distance between two of them: all in float64, whatever the features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 4096
"""Rows that are doubled at a time, so that 50,000 of them are never in memory twice."""


class Gaussian(NamedTuple):
    """`mean[D]` and the unbiased `covariance[D, D]`, float64."""

    mean: Tensor
    covariance: Tensor


def fit(features: Tensor) -> Gaussian:
    """The Gaussian of the rows of `features[N, D]`, N at least 2."""
    mean = torch.stack([part.double().sum(0) for part in torch.split(features, ROWS)]).sum(0) / len(features)
    products = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=features.device)
    for part in torch.split(features, ROWS):
        centred = part.double() - mean
        products.addmm_(centred.T, centred)
    return Gaussian(mean, products / (len(features) - 1))


def distance(a: Gaussian, b: Gaussian) -> float:
    """`|mu_a - mu_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))` (Dowson & Landau 1982)."""
    # The symmetric form sqrt(A)·B·sqrt(A) has the same trace of the root as A·B, and no complex part.
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    trace = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp_min(0).sqrt().sum()
    means = (a.mean - b.mean).square().sum()
    return float(means + a.covariance.trace() + b.covariance.trace() - 2 * trace)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to the rows of `a[N, D]` and `b[M, D]`."""
    return distance(fit(a), fit(b))
