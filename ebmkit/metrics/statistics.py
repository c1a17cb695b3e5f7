"""Plain statistics of pixels, for which no network has to be trusted: contrast, texture, spectrum, memorization."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1024
"""Images that are looked at together; their distances to 50,000 others are 200 MB."""


def pixel_std_ratio(samples: Tensor, real: Tensor) -> float:
    """Standard deviation of all values of `samples[N, C, H, W]` divided by that of `real`; 1 is right."""
    return float(_std(samples) / _std(real))


def neighbour_difference_ratio(samples: Tensor, real: Tensor) -> float:
    """Root mean square difference of adjacent pixels, divided by that of `real`; above 1 rough, below blurred."""
    return float(_neighbour_difference(samples) / _neighbour_difference(real))


def spectrum_distance(samples: Tensor, real: Tensor) -> float:
    """Root mean square over frequencies of the difference of the two power spectra, in dB; 0 is right.

    Power `|F(x)|^2` is the mean over images and channels, then over rings of equal radial frequency.
    """
    decibels = 10 * (radial_spectrum(samples) / radial_spectrum(real)).log10()
    return float(decibels.square().mean().sqrt())


def radial_spectrum(images: Tensor) -> Tensor:
    """Mean power of `images[N, C, H, W]` at radial frequencies of 0, 1, 2, ... waves an image, `[R]`, float64."""
    height, width = images.shape[-2:]
    power = torch.zeros(height, width, dtype=torch.float64, device=images.device)
    for part in torch.split(images, ROWS):
        power += torch.fft.fft2(part.double(), norm="ortho").abs().square().mean(1).sum(0)
    down = torch.fft.fftfreq(height, 1 / height, device=images.device).view(-1, 1)
    across = torch.fft.fftfreq(width, 1 / width, device=images.device)
    ring = (down.square() + across.square()).sqrt().round().long().flatten()
    inside = ring <= max(1, min(height, width) // 2)
    rings = torch.zeros(int(ring[inside].max()) + 1, dtype=torch.float64, device=images.device)
    sums = rings.index_add(0, ring[inside], power.flatten()[inside] / len(images))
    # A flat picture has no power anywhere else, and a logarithm needs some.
    return (sums / torch.bincount(ring[inside])).clamp_min(1e-12)


def nearest_image_ratio(samples: Tensor, real: Tensor) -> float:
    """How far samples are from the nearest real image, in units of how far real images are from their nearest other.

    Both are medians of Euclidean distances, the second over as many real images as there are samples. About 1 for
    images as new as another real one, near 0 for copies; images without structure are near others, too.
    """
    count = min(len(samples), len(real))
    chosen = torch.linspace(0, len(real) - 1, count).long()
    among = _nearest(real[chosen], real, chosen).median()
    return float(_nearest(samples, real).median() / among.clamp_min(1e-12))


def _nearest(images: Tensor, real: Tensor, own: Tensor | None = None) -> Tensor:
    """Distance of each image to the nearest real one, other than that at its `own` place: `[N]`."""
    rows, found = real.flatten(1), []
    for first, part in enumerate(torch.split(images.flatten(1), ROWS)):
        distances = torch.cdist(part, rows)
        if own is not None:
            columns = own[first * ROWS : first * ROWS + len(part)]
            distances[torch.arange(len(part)), columns] = torch.inf
        found.append(distances.amin(1))
    return torch.cat(found)


def _std(images: Tensor) -> Tensor:
    parts = torch.split(images, ROWS)
    mean = torch.stack([part.double().sum() for part in parts]).sum() / images.numel()
    squares = torch.stack([(part.double() - mean).square().sum() for part in parts]).sum()
    return (squares / images.numel()).sqrt().clamp_min(1e-12)


def _neighbour_difference(images: Tensor) -> Tensor:
    squares = torch.zeros((), dtype=torch.float64, device=images.device)
    count = 0
    for part in torch.split(images, ROWS):
        for differences in (part.double().diff(dim=-2), part.double().diff(dim=-1)):
            squares += differences.square().sum()
            count += differences.numel()
    return (squares / count).sqrt().clamp_min(1e-12)
