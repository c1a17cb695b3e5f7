"""The plain statistics of pixels: right for real images, and wrong in the known direction for known damage."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ebmkit.metrics import statistics
from ebmkit.metrics.names import STATISTICS, choose
from ebmkit.metrics.statistics import (
    nearest_image_ratio,
    neighbour_difference_ratio,
    pixel_std_ratio,
    radial_spectrum,
    spectrum_distance,
)


def textures(count: int, seed: int, size: int = 16) -> Tensor:
    """Smooth random images, `[count, 3, size, size]`."""
    random = torch.Generator().manual_seed(seed)
    return avg_pool2d(torch.randn(count, 3, size + 2, size + 2, generator=random), 3, stride=1)


REAL, OTHERS = textures(600, seed=0), textures(200, seed=1)


@pytest.mark.parametrize("name", STATISTICS)
def test_real_images_are_right(name: str) -> None:
    assert choose([name])[0].name == name
    found = getattr(statistics, name)(OTHERS, REAL)
    assert found == pytest.approx(0 if name == "spectrum_distance" else 1, abs=0.15)


def test_contrast_is_the_ratio_of_standard_deviations() -> None:
    assert pixel_std_ratio(0.5 * REAL + 0.3, REAL) == pytest.approx(0.5)
    assert pixel_std_ratio(torch.zeros_like(REAL), REAL) < 1e-6


def test_neighbours_tell_blur_from_noise() -> None:
    blurred = avg_pool2d(REAL, 3, stride=1, padding=1)
    noisy = REAL + 0.5 * torch.randn(REAL.shape, generator=torch.Generator().manual_seed(2))
    assert neighbour_difference_ratio(blurred, REAL) < 0.6
    assert neighbour_difference_ratio(noisy, REAL) > 1.5
    plane, columns = torch.tensor([[[[0.0, 1.0], [1.0, 2.0]]]]), torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    # Four differences of 1 in the plane; in the columns two of 1 to the right, and two of 0 down.
    assert neighbour_difference_ratio(columns, plane) == pytest.approx(math.sqrt(0.5))


def test_the_spectrum_is_that_of_a_wave() -> None:
    """All power of three waves an image lies in the third ring."""
    wave = (2 * math.pi * 3 * torch.arange(16) / 16).cos().expand(1, 1, 16, 16)
    spectrum = radial_spectrum(wave)
    assert len(spectrum) == 9
    assert spectrum.argmax() == 3
    assert spectrum[[0, 1, 2, 4, 5, 6, 7, 8]].max() < 1e-6 * spectrum[3]


def test_the_spectrum_s_distance_is_in_decibels() -> None:
    assert spectrum_distance(10 * REAL, REAL) == pytest.approx(20, rel=1e-6)
    assert spectrum_distance(REAL.flip(-1), REAL) == pytest.approx(0, abs=1e-6)


def test_the_spectrum_knows_no_directions() -> None:
    """Stripes down are stripes across, seen from the side."""
    stripes = torch.randn(300, 3, 16, 1, generator=torch.Generator().manual_seed(3)).expand(-1, -1, -1, 16)
    torch.testing.assert_close(radial_spectrum(stripes.transpose(-1, -2)), radial_spectrum(stripes))


def test_the_spectrum_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = radial_spectrum(REAL), pixel_std_ratio(OTHERS, REAL), neighbour_difference_ratio(OTHERS, REAL)
    assert whole[1] == pytest.approx(float(OTHERS.std() / REAL.std()), rel=1e-4)
    monkeypatch.setattr(statistics, "ROWS", 7)
    torch.testing.assert_close(radial_spectrum(REAL), whole[0])
    assert pixel_std_ratio(OTHERS, REAL) == pytest.approx(whole[1], rel=1e-12)
    assert neighbour_difference_ratio(OTHERS, REAL) == pytest.approx(whole[2], rel=1e-12)


def test_copies_are_near_and_noise_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = REAL[:100] + 0.001
    assert nearest_image_ratio(copies, REAL) < 0.05
    assert nearest_image_ratio(3 * torch.randn(100, 3, 16, 16), REAL) > 3
    whole = nearest_image_ratio(OTHERS, REAL)
    monkeypatch.setattr(statistics, "ROWS", 7)
    assert nearest_image_ratio(OTHERS, REAL) == pytest.approx(whole)


def test_the_nearest_of_real_images_are_others() -> None:
    """By hand: images at 0, 1, 3 and 7 are 1, 1, 2 and 4 from their nearest other."""
    real = torch.tensor([0.0, 1.0, 3.0, 7.0]).view(4, 1, 1, 1)
    samples = torch.tensor([10.0, 10.0, 10.0, 10.0]).view(4, 1, 1, 1)
    # torch's median of an even number is the lower of the middle two.
    assert nearest_image_ratio(samples, real) == pytest.approx(3.0 / 1.0)
