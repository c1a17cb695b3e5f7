"""Annealed importance sampling against partition functions that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ebmkit.annealing.bridge import GaussianBase, state_at
from ebmkit.annealing.hamiltonian import transition
from ebmkit.annealing.path import Path, find_path
from ebmkit.annealing.weights import Annealed, LogPartition, anneal, anneal_back, log_partition
from ebmkit.energy_model import EnergyModel
from ebmkit.errors import BadInput
from ebmkit.testing.analytic import Bowl

SHAPES = [(1, 1, 2), (1, 8, 8), (3, 8, 8)]
"""2, 64 and 192 dimensions."""
Energy = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def at_one(model: EnergyModel) -> Energy:
    return lambda x: model(x, torch.ones(len(x), dtype=torch.int64))


def forward(
    energy: Energy, base: GaussianBase, stops: int, chains: int = 100, leaps: int = 3, seed: int = 0
) -> tuple[LogPartition, Annealed, Path]:
    random = torch.Generator().manual_seed(seed)
    path = find_path(energy, base, stops, chains, leaps, random)
    annealed = anneal(energy, base, path, chains, leaps, random)
    return log_partition(annealed.log_weights), annealed, path


@pytest.mark.parametrize("shape", SHAPES, ids=["2", "64", "192"])
@pytest.mark.parametrize(("center", "width"), [(0.3, 0.5), (-0.5, 1.6)])
def test_a_gaussians_partition_function(shape: tuple[int, int, int], center: float, width: float) -> None:
    """`Z = (2 pi w^2)^(D/2)`, within four of the stated errors, and between both bounds."""
    energy, base = at_one(Bowl(center, width)), GaussianBase(torch.zeros(shape), 1.0)
    found, annealed, path = forward(energy, base, stops=600)
    truth = math.prod(shape) / 2 * math.log(2 * math.pi * width**2)
    assert found.effective > 15
    assert found.error < 0.25
    assert abs(found.value - truth) < 4 * found.error
    assert annealed.acceptance == pytest.approx(0.8, abs=0.1)
    # Chains that go back from exact draws bound it from above.
    random = torch.Generator().manual_seed(1)
    draws = center + width * torch.randn(200, *shape, generator=random)
    backward = anneal_back(energy, base, path, draws, 3, random).log_weights
    lower, upper = annealed.log_weights, backward
    for weights, side in ((lower, 1), (upper, -1)):
        # Bounds in expectation: each mean has an error of its own.
        assert side * (truth - float(weights.mean())) > -4 * float(weights.std()) / math.sqrt(len(weights))
    assert abs(float(upper.mean()) - float(lower.mean())) < 3


class Correlated(EnergyModel):
    """`f(x, t) = x^T A x / 2`, with the eigenvalues of `A` between 1/4 and 4."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(7)
        rotation, _ = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=random, dtype=torch.float64))
        self.values = torch.logspace(-1, 1, dimensions, base=4, dtype=torch.float64)
        self.matrix = ((rotation * self.values) @ rotation.T).float()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        flat = x.flatten(1)
        return ((flat @ self.matrix) * flat).sum(1) / 2


def test_a_correlated_gaussians_partition_function() -> None:
    model = Correlated(64)
    found, _, _ = forward(at_one(model), GaussianBase(torch.full((1, 8, 8), 0.2), 0.8), stops=600)
    truth = 32 * math.log(2 * math.pi) - float(model.values.log().sum()) / 2
    assert found.error < 0.3
    assert abs(found.value - truth) < 4 * found.error


class Mixture(EnergyModel):
    """`exp(-f)` is 3 Gaussian bumps at -1 and 2 at +1, of width 0.6 in every dimension."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        bumps = [
            math.log(weight) - (x - center).square().flatten(1).sum(1) / (2 * 0.6**2)
            for center, weight in ((-1.0, 3.0), (1.0, 2.0))
        ]
        return -torch.stack(bumps).logsumexp(0)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=["2", "64"])
def test_a_mixtures_partition_function(shape: tuple[int, int, int]) -> None:
    dimensions = math.prod(shape)
    found, annealed, _ = forward(at_one(Mixture()), GaussianBase(torch.zeros(shape), 1.2), stops=600, chains=200)
    truth = dimensions / 2 * math.log(2 * math.pi * 0.6**2) + math.log(5)
    assert found.error < 0.25
    assert abs(found.value - truth) < 4 * found.error
    left = annealed.x.flatten(1).mean(1) < 0
    # Neither bump is left out, and the weights know how much each of them holds.
    share = float(annealed.log_weights.softmax(0)[left].sum())
    assert 0.3 < float(left.double().mean()) < 0.8
    assert share == pytest.approx(0.6, abs=0.2)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=["2", "64"])
@pytest.mark.parametrize(("center", "width"), [(0.6, 0.5), (0.0, 3.0)])
def test_a_gaussian_within_the_cube(shape: tuple[int, int, int], center: float, width: float) -> None:
    base = GaussianBase(torch.full(shape, 0.2), 0.7, edge=1.0)
    found, annealed, _ = forward(at_one(Bowl(center, width)), base, stops=600)
    normal = torch.distributions.Normal(center, width)
    inside = float((normal.cdf(torch.tensor(1.0)) - normal.cdf(torch.tensor(-1.0))).log())
    truth = math.prod(shape) * (math.log(width * math.sqrt(2 * math.pi)) + inside)
    assert float(annealed.x.abs().max()) <= 1
    assert found.error < 0.25
    assert abs(found.value - truth) < 4 * found.error


@pytest.mark.parametrize("edge", [None, 0.8])
def test_a_base_draws_what_its_density_says(edge: float | None) -> None:
    """Importance weights between two bases average to the ratio of their normalising constants, 1."""
    random = torch.Generator().manual_seed(0)
    wide = GaussianBase(torch.tensor([[[0.1, -0.4]]]), 0.9, edge)
    narrow = GaussianBase(torch.tensor([[[0.0, 0.3]]]), 0.5, edge)
    x = wide.sample(40_000, random)
    weights = (narrow.log_density(x) - wide.log_density(x)).exp()
    assert float(weights.mean()) == pytest.approx(1, abs=4 * float(weights.std()) / 200)
    assert edge is None or float(x.abs().max()) <= edge


@pytest.mark.parametrize("edge", [None, 1.0])
def test_transitions_leave_the_density_as_it_is(edge: float | None) -> None:
    """Exact draws stay exact: a step that is far too long, a biased test or a wrong wall would change the moments."""
    random = torch.Generator().manual_seed(0)
    base = GaussianBase(torch.full((1, 1, 2), 0.4), 0.6, edge)
    # The same energy as the base's: at every beta the density is the base.
    energy = at_one(Bowl(0.4, 0.6))
    start = base.sample(20_000, random)
    state = state_at(energy, base, start)
    for _ in range(15):
        state, probability = transition(energy, base, 0.5, state, 0.7, 3, random)
    assert 0.2 < float(probability.mean()) < 1
    other = base.sample(20_000, random)
    for moment in (Tensor.clone, Tensor.square, lambda x: (x > 0.9).float()):
        moved, fresh = moment(state.x), moment(other)
        spread = math.hypot(float(moved.std()), float(fresh.std())) / math.sqrt(40_000)
        assert float(moved.mean()) == pytest.approx(float(fresh.mean()), abs=4 * spread)
    correlation = torch.corrcoef(torch.stack([state.x.flatten(), start.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.1, "and they do move"


def test_stops_are_closer_where_the_density_changes_more() -> None:
    _, _, path = forward(at_one(Bowl(0.0, 0.05)), GaussianBase(torch.zeros(1, 8, 8), 1.0), stops=50)
    steps = [b - a for a, b in zip(path.betas, path.betas[1:], strict=False)]
    assert len(path.betas) == len(path.steps) == 51
    assert (path.betas[0], path.betas[-1]) == (0, 1)
    assert min(steps) > 0
    assert steps[0] < 2e-3 < 0.02 < steps[-1]
    assert path.steps[0] > 5 * path.steps[-1], "and the leaps shorter where it is narrow"


def test_the_effective_sample_size_and_its_error() -> None:
    even = log_partition(torch.full((50,), 3.0, dtype=torch.float64))
    assert even == pytest.approx((3.0, 0.0, 50.0, 3.0), abs=1e-6)
    one = log_partition(torch.tensor([0.0, -800.0, -800.0, -800.0], dtype=torch.float64))
    assert one.effective == pytest.approx(1)
    assert one.value == pytest.approx(-math.log(4))
    weights = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    some = log_partition(weights.log() + 1000)
    assert some.value == pytest.approx(1000 + math.log(8 / 3))
    assert some.effective == pytest.approx(64 / 30)


def test_an_energy_that_is_not_finite() -> None:
    with pytest.raises(BadInput, match="not finite near the images"):
        forward(lambda x: x.flatten(1).sum(1).sqrt(), GaussianBase(torch.zeros(1, 2, 2), 1.0), stops=10)


def test_the_same_seed_gives_the_same_numbers() -> None:
    energy, base = at_one(Bowl(0.3, 0.5)), GaussianBase(torch.zeros(1, 2, 2), 1.0)
    assert forward(energy, base, 20)[0] == forward(energy, base, 20)[0]
    assert forward(energy, base, 20)[0] != forward(energy, base, 20, seed=1)[0]
