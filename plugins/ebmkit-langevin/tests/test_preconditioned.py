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
from ebmkit.spectrum import filtered, power_law
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


@pytest.mark.parametrize("size", [(8, 6), (5, 7), (16, 16)])
def test_powers_have_a_mean_of_one_and_fall(size: tuple[int, int]) -> None:
    white = torch.randn(4000, 1, *size, generator=torch.Generator().manual_seed(0))
    for exponent in (0.0, 0.5, 1.0):
        power = power_law(*size, exponent)
        colored = filtered(white, power.sqrt())
        assert colored.var().item() == pytest.approx(1, rel=0.02)
        assert power[0, 0] == power.max()
        whole = torch.fft.fft2(filtered(white, power)) / torch.fft.fft2(white)
        torch.testing.assert_close(
            whole.real[..., : power.shape[1]], power.expand(4000, 1, -1, -1), rtol=1e-2, atol=1e-2
        )
    torch.testing.assert_close(power_law(*size, 0.0), torch.ones(size[0], size[1] // 2 + 1))


def test_the_map_is_symmetric() -> None:
    x, y = torch.randn(2, 1, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    power = power_law(8, 6, 1.0)
    torch.testing.assert_close((filtered(x, power) * y).sum(), (x * filtered(y, power)).sum())


def test_without_a_spectrum_it_is_langevin() -> None:
    x, t = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(2)), torch.tensor([1, 2, 3, 1, 2, 3])
    plain = build(Langevin).refine(energy, x, t, noise())
    torch.testing.assert_close(build(PreconditionedLangevin, spectrum=0.0).refine(energy, x, t, noise()), plain)


def test_it_is_langevin_of_whitened_images() -> None:
    """With y = P^(-1/2) x: the plain sampler on f(P^(1/2) y), from the same white start and with the same noise."""
    root = power_law(*SHAPE[1:], 1.0).sqrt()
    y, t = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3)), torch.full((6,), 3)
    white = build(Langevin).refine(lambda y, t: energy(filtered(y, root), t), y, t, noise())
    found = build(PreconditionedLangevin, spectrum=1.0).refine(energy, y, t, noise())
    torch.testing.assert_close(found, filtered(white, root), rtol=1e-4, atol=1e-4)


def test_only_chains_that_start_are_colored() -> None:
    x, t = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(4)), torch.tensor([3, 2, 3, 1])
    sampler = build(PreconditionedLangevin, spectrum=1.0, start=0.5)
    begun = sampler.begin(x, t)
    torch.testing.assert_close(begun[[1, 3]], x[[1, 3]], rtol=0, atol=0)
    torch.testing.assert_close(begun[[0, 2]], 0.5 * filtered(x[[0, 2]], power_law(*SHAPE[1:], 1.0).sqrt()))


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
