"""Langevin steps against closed forms: a quadratic energy has Gaussian chains, whose moments are known exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ebmkit_langevin.functional import clip_norm, langevin_step
from ebmkit_langevin.sampler import AUTO_GRADIENT_NORM, Langevin
from torch import Tensor, nn

from ebmkit import Context, energy_gradient
from ebmkit.noise import GeneratorNoise
from ebmkit.reachability import reach_ratio
from ebmkit.testing import SamplerContract

LINEAR = {"use": "linear", "start": 0.3, "end": 0.0}


def sampler(time_steps: int = 1, shape: tuple[int, int, int] = (1, 2, 2), **options: Any) -> Langevin:
    return Langevin(Langevin.Options(**options), Context(shape, time_steps))


def noise(seed: int = 0) -> GeneratorNoise:
    return GeneratorNoise(torch.Generator().manual_seed(seed))


class Ones:
    """A noise source without noise: what it adds can be read off the result."""

    def normal_like(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)

    def uniform_like(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


class RowNoise:
    """The k-th call gives rows of a fixed table, so that samples have the same noise in any batch."""

    def __init__(self, table: Tensor, rows: Tensor) -> None:
        self.table, self.rows, self.calls = table, rows, 0

    def normal_like(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.table[self.calls - 1, self.rows].to(x.dtype)

    def uniform_like(self, x: Tensor) -> Tensor:
        raise AssertionError("Langevin dynamics uses no uniform numbers")


def flat(x: Tensor, t: Tensor) -> Tensor:
    """An energy without any slope."""
    return (x * 0).sum((1, 2, 3))


def quadratic(mean: float, scale: float) -> Any:
    return lambda x, t: ((x - mean) ** 2).sum((1, 2, 3)) / (2 * scale**2)


@pytest.mark.parametrize(("eta", "sigma"), [(0.25, 0.5), (0.5, 0.25)])
@pytest.mark.parametrize("steps", [4, 60])
def test_chains_on_a_quadratic_energy_have_the_known_moments(eta: float, sigma: float, steps: int) -> None:
    # One step is y <- a y + sigma N(0, 1) with y = x - m and a = 1 - eta / (2 s^2), hence
    # E y_n = a^n E y_0 and Var y_n = v + a^(2n) (Var y_0 - v) with v = sigma^2 / (1 - a^2).
    # Where noise is tied to the step, sigma^2 = eta, that v is s^2 / (1 - eta / (4 s^2)).
    mean, scale = 1.5, 0.7
    chains = torch.randn(250, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    refined = sampler(steps=steps, step_size=eta, noise=sigma).refine(
        quadratic(mean, scale), chains, torch.ones(250, dtype=torch.int64), noise(2)
    )
    a = 1 - eta / (2 * scale**2)
    stationary = sigma**2 / (1 - a**2)
    if sigma**2 == eta:
        assert stationary == pytest.approx(scale**2 / (1 - eta / (4 * scale**2)))
    variance = stationary + a ** (2 * steps) * (1 - stationary)
    count = chains.numel()
    assert refined.mean().item() == pytest.approx(mean * (1 - a**steps), abs=5 * math.sqrt(variance / count))
    assert refined.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / count))
    assert refined.dtype == torch.float64


@pytest.mark.parametrize("time_steps", [1, 4])
@pytest.mark.parametrize("steps", [1, 3])
def test_annealed_noise_begins_at_its_start_and_is_exactly_zero_in_the_very_last_step(
    time_steps: int, steps: int
) -> None:
    langevin = sampler(time_steps, steps=steps, step_size=1.0, noise=LINEAR)
    assert langevin.sigmas.shape == langevin.step_sizes.shape == (time_steps, steps)
    assert langevin.sigmas[-1, -1].item() == 0.0
    count = time_steps * steps
    if count > 1:
        assert langevin.sigmas[0, 0] == torch.tensor(0.3)
        expected = torch.tensor([0.3 * (1 - i / (count - 1)) for i in range(count)])
        torch.testing.assert_close(langevin.sigmas.flatten(), expected)


def test_the_last_step_of_the_sweep_adds_no_noise_and_the_one_before_does() -> None:
    langevin = sampler(2, steps=2, step_size=1.0, noise={"use": "linear", "start": 0.75, "end": 0.0})
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    first = langevin.refine(flat, x, torch.tensor([2]), Ones())
    last = langevin.refine(flat, x, torch.tensor([1]), Ones())
    torch.testing.assert_close(first, torch.full_like(x, 0.75 + 0.5), atol=1e-7, rtol=0)
    torch.testing.assert_close(last, torch.full_like(x, 0.25), atol=1e-7, rtol=0)


def test_annealing_by_time_step_holds_the_noise_within_each() -> None:
    langevin = sampler(4, steps=3, step_size=1.0, noise=LINEAR, anneal="time_step")
    torch.testing.assert_close(langevin.sigmas, torch.tensor([0.3, 0.2, 0.1, 0.0]).unsqueeze(1).expand(4, 3))
    assert (langevin.sigmas[-1] == 0).all()
    only = sampler(1, steps=2, step_size=1.0, noise=LINEAR, anneal="time_step")
    torch.testing.assert_close(only.sigmas, torch.full((1, 2), 0.3))


def test_one_step_follows_the_equation_and_is_half_the_step_size() -> None:
    x = torch.tensor([[[[2.0]]], [[[4.0]]]], dtype=torch.float64)
    gradient = energy_gradient(quadratic(1.0, 1.0), x, torch.tensor([1, 1]))
    assert gradient.flatten().tolist() == [1.0, 3.0]
    eta, sigma = torch.tensor([0.5, 1.0]), torch.tensor([0.0, 2.0])
    stepped = langevin_step(x, gradient, eta, sigma, torch.full_like(x, 10.0))
    assert stepped.flatten().tolist() == [2 - 0.25 * 1, 4 - 0.5 * 3 + 2 * 10]


def test_samples_at_different_times_in_one_batch_are_as_in_batches_of_their_own() -> None:
    langevin = sampler(
        3, steps=2, step_size={"use": "linear", "start": 1.0, "end": 0.1}, noise={"use": "linear", "start": 0.5}
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 1, 2, 2, dtype=torch.float64, generator=generator)
    table = torch.randn(2, 6, 1, 2, 2, dtype=torch.float64, generator=generator)
    t = torch.tensor([3, 1, 2, 1, 3, 2])

    def energy(x: Tensor, t: Tensor) -> Tensor:
        return t * (x - t.view(-1, 1, 1, 1)).square().sum((1, 2, 3)) / 4

    together = langevin.refine(energy, x, t, RowNoise(table, torch.arange(6)))
    for step in (1, 2, 3):
        rows = (t == step).nonzero().flatten()
        alone = langevin.refine(energy, x[rows], t[rows], RowNoise(table, rows))
        torch.testing.assert_close(together[rows], alone, rtol=1e-12, atol=1e-12)
    swapped = langevin.refine(energy, x, 4 - t, RowNoise(table, torch.arange(6)))
    assert not torch.allclose(swapped[0], together[0])


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x.flatten(1)).tanh().squeeze(1)


@pytest.mark.parametrize("trainable", [True, False])
def test_refining_leaves_no_traces(trainable: bool) -> None:
    network = Network().requires_grad_(trainable)
    x = torch.randn(3, 1, 2, 2, requires_grad=True)
    before = x.detach().clone()
    refined = sampler(steps=2, step_size=1.0, noise=0.1).refine(network, x, torch.ones(3, dtype=torch.int64), noise())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad == trainable for parameter in network.parameters())
    assert x.requires_grad
    assert x.grad is None
    assert torch.equal(x.detach(), before)
    assert not refined.requires_grad
    assert refined.grad_fn is None
    assert not torch.equal(refined, before)


def test_refining_works_where_gradients_are_switched_off() -> None:
    x = torch.full((1, 1, 1, 1), 3.0)
    with torch.no_grad():
        refined = sampler(steps=1, step_size=0.5, noise=0.0).refine(quadratic(1, 1), x, torch.tensor([1]), noise())
    assert refined.item() == 3 - 0.25 * 2


def test_gradients_are_clipped_per_sample_and_only_where_too_long() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64).view(3, 1, 1, 2)
    clipped = clip_norm(gradient, 1.0)
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64).view(3, 1, 1, 2)
    torch.testing.assert_close(clipped, expected)
    x = torch.tensor([[[[6.0]]], [[[1.25]]]])
    langevin = sampler(steps=1, step_size=1.0, noise=0.0, clip_gradient=2.0)
    refined = langevin.refine(quadratic(1, 1), x, torch.tensor([1, 1]), noise())
    assert refined.flatten().tolist() == [6 - 0.5 * 2, 1.25 - 0.5 * 0.25]


def test_clamp_keeps_images_within_bounds_after_each_step() -> None:
    x = torch.tensor([[[[5.0, -5.0, 0.25]]]])
    refined = sampler(steps=1, step_size=1.0, noise=0.0, clamp=1.5).refine(flat, x, torch.tensor([1]), noise())
    assert refined.flatten().tolist() == [1.5, -1.5, 0.25]
    free = sampler(steps=1, step_size=1.0, noise=0.0).refine(flat, x, torch.tensor([1]), noise())
    assert torch.equal(free, x)


@pytest.mark.parametrize("anneal", ["step", "time_step"])
@pytest.mark.parametrize("step_size", [1.7, {"use": "cosine", "start": 2.0, "end": 0.5}, "auto"])
def test_the_budget_is_the_sum_over_what_the_sampler_does(anneal: str, step_size: Any) -> None:
    context = Context((3, 8, 8), 5)
    options = Langevin.Options(steps=4, step_size=step_size, noise=LINEAR, anneal=anneal)
    langevin, budget = Langevin(options, context), Langevin.sweep_budget(options, context)
    travel = noise_added = 0.0
    for row in range(5):
        for k in range(4):
            travel += langevin.step_sizes[row, k].item() / 2
            noise_added += langevin.sigmas[row, k].item() ** 2
    assert budget.travel == pytest.approx(travel, rel=1e-6)
    assert budget.noise == pytest.approx(noise_added, rel=1e-6)
    if anneal == "step":
        # sigma^2 * T * K / 3 and the ends' share of it: sum of (i / (n - 1))^2 for i < n.
        assert budget.noise == pytest.approx(0.09 * 20 * 39 / (6 * 19))


@pytest.mark.parametrize("ratio", [1.0, 1.1, 1.3])
@pytest.mark.parametrize("steps", [1, 6])
def test_the_automatic_step_size_reaches_the_wanted_ratio(ratio: float, steps: int) -> None:
    context = Context((3, 32, 32), 20)
    options = Langevin.Options(steps=steps, noise=LINEAR, auto_ratio=ratio)
    budget = Langevin.sweep_budget(options, context)
    assert reach_ratio(budget.travel, budget.noise, 3 * 32 * 32, AUTO_GRADIENT_NORM) == pytest.approx(ratio)
    assert Langevin(options, context).step_sizes.unique().numel() == 1


def test_schedules_below_zero_are_problems() -> None:
    context = Context((1, 8, 8), 4)
    falling = {"use": "linear", "start": 1.0, "end": -0.5}
    assert Langevin.problems(Langevin.Options(step_size=1.0, noise=LINEAR), context) == []
    (problem,) = Langevin.problems(Langevin.Options(step_size=falling, noise=0.1), context)
    assert problem.startswith("step_size: ")
    (problem,) = Langevin.problems(Langevin.Options(step_size=1.0, noise=falling), context)
    assert problem.startswith("noise: ")


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"step_size": "fast"}, {"clamp": 0.0}, {"clip_gradient": -1.0}, {"anneal": "never"}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Langevin.Options(**options)


def test_steps_and_noise_are_the_sampler_s_own_on_a_flat_energy() -> None:
    langevin = sampler(steps=5, step_size=1.0, noise=0.5)
    assert langevin.steps == 5
    refined = langevin.refine(flat, torch.zeros(400, 1, 8, 8), torch.ones(400, dtype=torch.int64), noise(3))
    assert refined.var().item() == pytest.approx(5 * 0.25, rel=5 * math.sqrt(2 / refined.numel()))


class TestLangevinContract(SamplerContract):
    """What every sampler must keep to; and with small steps and noise to match it samples exp(-f)."""

    component = Langevin
    gibbs_options = {"steps": 5, "step_size": 0.02, "noise": math.sqrt(0.02)}


class TestLangevinContractWithOptions(SamplerContract):
    """The same with schedules, clipping and clamping that do not change a gentle sweep."""

    component = Langevin
    options = {
        "steps": 2,
        "step_size": {"use": "linear", "start": 2.0, "end": 0.5},
        "anneal": "time_step",
        "clip_gradient": 50.0,
        "clamp": 100.0,
    }
