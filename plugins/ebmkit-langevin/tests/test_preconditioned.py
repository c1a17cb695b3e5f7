"""Preconditioned Langevin: the plain sampler seen through a linear map, and exact spectra."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ebmkit_langevin.preconditioned import PreconditionedLangevin
from ebmkit_langevin.sampler import Langevin, sweep_table
from torch import Tensor

from ebmkit import Context
from ebmkit.noise import GeneratorNoise
from ebmkit.spectrum import Preconditioner, power_law
from ebmkit.testing import SamplerContract

SHAPE = (2, 8, 6)


def build(kind: type[Langevin], time_steps: int = 3, **options: Any) -> Langevin:
    return kind(kind.Options(**{"steps": 4, "step_size": 0.3, "noise": 0.2, **options}), Context(SHAPE, time_steps))


def noise(seed: int = 0) -> GeneratorNoise:
    return GeneratorNoise(torch.Generator().manual_seed(seed))


def added(options: Langevin.Options) -> float:
    """S, the variance that the noise adds to a pixel."""
    return sum(sigma**2 for row in sweep_table(options, Context(SHAPE, 10)) for _, sigma in row)


def energy(x: Tensor, t: Tensor) -> Tensor:
    """Curved, and different at each time step."""
    return (t.view(-1, 1, 1, 1) * (x - 0.5).square() / 4 + x.sin()).sum((1, 2, 3))


@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 5, 7), (2, 16, 16)])
@pytest.mark.parametrize(("spectrum", "chroma"), [(0.0, 1.0), (0.5, 1.0), (1.0, 0.1), (0.0, 0.1)])
def test_noise_of_a_preconditioner_has_its_covariance(
    shape: tuple[int, int, int], spectrum: float, chroma: float
) -> None:
    """A variance of 1 at each pixel, that of the power law at each frequency, and little colour."""
    preconditioner = Preconditioner(shape, spectrum, chroma)
    white = torch.randn(4000, *shape, generator=torch.Generator().manual_seed(0))
    noise = preconditioner.root(white)
    assert noise.var().item() == pytest.approx(1, rel=0.02)
    torch.testing.assert_close(preconditioner.root(noise), preconditioner.apply(white), rtol=1e-3, atol=1e-4)
    power = torch.fft.rfft2(noise, norm="ortho").abs().square().mean((0, 1))
    torch.testing.assert_close(power, power_law(*shape[1:], spectrum), rtol=0.15, atol=0)
    if shape[0] > 1:
        mean = noise.mean(1, keepdim=True)
        # Of white channels the mean has 1 / C of the variance, and each difference 1 of C - 1 shares of the rest.
        ratio = (noise - mean).square().sum() / (shape[0] - 1) / (shape[0] * mean.square().sum())
        assert ratio.item() == pytest.approx(chroma, rel=0.03)


def test_the_power_falls_as_said() -> None:
    power = power_law(64, 64, 1.5)
    assert power[0, 0] == power.max()
    assert (power[0, 4] / power[0, 8]).item() == pytest.approx(((8**2 + 1) / (4**2 + 1)) ** 1.5)
    torch.testing.assert_close(power_law(8, 6, 0.0), torch.ones(8, 4))


def test_the_map_is_symmetric() -> None:
    x, y = torch.randn(2, 1, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    preconditioner = Preconditioner((3, 8, 6), 1.0, 0.2)
    torch.testing.assert_close((preconditioner.apply(x) * y).sum(), (x * preconditioner.apply(y)).sum())


def test_without_a_preconditioner_it_is_langevin() -> None:
    x, t = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(2)), torch.tensor([1, 2, 3, 1, 2, 3])
    plain = build(Langevin).refine(energy, x, t, noise())
    torch.testing.assert_close(
        build(PreconditionedLangevin, spectrum=0.0, chroma=1.0).refine(energy, x, t, noise()), plain
    )


def test_it_is_langevin_of_whitened_images() -> None:
    """With y = P^(-1/2) x: the plain sampler on f(P^(1/2) y), from the same white start and with the same noise."""
    root = Preconditioner(SHAPE, 1.0, 0.2).root
    y, t = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3)), torch.full((6,), 3)
    white = build(Langevin).refine(lambda y, t: energy(root(y), t), y, t, noise())
    found = build(PreconditionedLangevin, spectrum=1.0, chroma=0.2).refine(energy, y, t, noise())
    torch.testing.assert_close(found, root(white), rtol=1e-4, atol=1e-4)


def test_only_chains_that_start_are_colored() -> None:
    x, t = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(4)), torch.tensor([3, 2, 3, 1])
    sampler = build(PreconditionedLangevin, spectrum=1.0, chroma=0.2, start=0.5)
    begun = sampler.begin(x, t)
    torch.testing.assert_close(begun[[1, 3]], x[[1, 3]], rtol=0, atol=0)
    torch.testing.assert_close(begun[[0, 2]], 0.5 * Preconditioner(SHAPE, 1.0, 0.2).root(x[[0, 2]]))


def test_the_step_size_knows_where_chains_start() -> None:
    options = PreconditionedLangevin.Options(steps=3, start=0.5)
    far = Langevin.Options(steps=3)
    assert PreconditionedLangevin.sweep_budget(options, Context(SHAPE, 10)) is None
    etas = [sweep_table(each, Context(SHAPE, 10))[0][0][0] for each in (options, far)]
    assert etas[0] / etas[1] == pytest.approx(((0.25 + 0.27 + added(far)) / (1 + 0.27 + added(far))) ** 0.5)


def test_a_single_time_step_is_refused() -> None:
    options = PreconditionedLangevin.Options()
    assert PreconditionedLangevin.problems(options, Context(SHAPE, 2)) == []
    assert "needs time_steps of 2 or more" in PreconditionedLangevin.problems(options, Context(SHAPE, 1))[0]


class TestContract(SamplerContract):
    component = PreconditionedLangevin
