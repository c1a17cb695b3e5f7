"""The sign of contrastive divergence: training lowers energy on data, and chains then move towards the data."""

from __future__ import annotations

import pytest
import torch
from ebmkit_contrastive.objective import ContrastiveDivergence
from torch import Tensor, nn

from ebmkit import Context, Draw, EnergyFunction, Pairs
from ebmkit.noise import GeneratorNoise
from ebmkit.registry import default_registry
from ebmkit.testing import ObjectiveContract

SHAPE = (1, 2, 2)
CONTEXT = Context(SHAPE, 4)


def objective() -> ContrastiveDivergence:
    return ContrastiveDivergence(ContrastiveDivergence.Options(), CONTEXT)


class Network(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(5, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(torch.cat([x.flatten(1), t.view(-1, 1) / 4], 1)).squeeze(1)


class Chains:
    """Chains around -1, refined by nothing or by a function of the test's own."""

    def __init__(self, count: int = 64) -> None:
        self.x = -1 + 0.1 * torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))
        self.t = torch.arange(count) % 4 + 1
        self.refined: list[tuple[Tensor, Tensor]] = []

    def draw(self, n: int) -> Draw:
        slots = torch.arange(n).flip(0)
        return Draw(slots, self.x[slots], self.t[slots])

    def refine(self, x: Tensor, t: Tensor, energy: EnergyFunction | None = None) -> Tensor:
        assert energy is None
        self.refined.append((x, t))
        return x + 0.01


def data(count: int = 64) -> Tensor:
    return 1 + 0.1 * torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(2))


def gap(network: Network, pairs: Pairs) -> float:
    with torch.no_grad():
        return (network(pairs.x_pos, pairs.t).mean() - network(pairs.x_neg, pairs.t).mean()).item()


@pytest.mark.parametrize("seed", range(3))
def test_one_step_of_training_lowers_energy_on_data_and_raises_it_on_chains(seed: int) -> None:
    network = Network(seed)
    pairs = objective().pairs(network, data(), None, Chains(), torch.Generator())
    with torch.no_grad():
        before = network(pairs.x_pos, pairs.t).mean().item(), network(pairs.x_neg, pairs.t).mean().item()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    objective().loss(pairs).value.backward()
    optimizer.step()
    with torch.no_grad():
        after = network(pairs.x_pos, pairs.t).mean().item(), network(pairs.x_neg, pairs.t).mean().item()
    assert after[0] < before[0]
    assert after[1] > before[1]


@pytest.mark.parametrize("seed", range(3))
def test_after_training_langevin_chains_move_towards_the_data(seed: int) -> None:
    network, chains = Network(seed), Chains()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    start = gap(network, objective().pairs(network, data(), None, chains, torch.Generator()))
    for _ in range(20):
        pairs = objective().pairs(network, data(), None, chains, torch.Generator())
        optimizer.zero_grad()
        objective().loss(pairs).value.backward()
        optimizer.step()
    assert gap(network, pairs) < start - 0.1
    kind = default_registry().component("sampler", "langevin")
    langevin = kind(kind.Options(steps=10, step_size=0.2, noise=0.0), CONTEXT)
    refined = langevin.refine(network, chains.x, chains.t, GeneratorNoise(torch.Generator()))
    moved = (refined - chains.x).mean(0)
    assert (moved > 0.01).all()
    away = (refined - 1).flatten(1).norm(dim=1)
    assert (away < (chains.x - 1).flatten(1).norm(dim=1)).all()


def test_pairs_are_the_refined_chains_and_clean_data_at_the_chains_own_time() -> None:
    chains, x_pos, labels = Chains(), data(6), torch.arange(6)
    pairs = objective().pairs(Network(0), x_pos, labels, chains, torch.Generator())
    ((x, t),) = chains.refined
    drawn = chains.draw(6)
    assert torch.equal(x, drawn.x)
    assert torch.equal(t, drawn.t)
    assert torch.equal(pairs.x_neg, drawn.x + 0.01)
    assert torch.equal(pairs.t, drawn.t)
    assert pairs.slots is not None
    assert torch.equal(pairs.slots, drawn.slots)
    assert pairs.x_pos is x_pos
    assert pairs.labels is labels


def test_the_loss_is_the_difference_of_mean_energies_at_the_same_time() -> None:
    calls = []

    def energy(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return x.sum((1, 2, 3)) * t

    t = torch.tensor([1, 3])
    x_pos = torch.tensor([1.0, 2.0], dtype=torch.float64).view(2, 1, 1, 1)
    x_neg = torch.tensor([5.0, -1.0], dtype=torch.float64).view(2, 1, 1, 1)
    term = objective().loss(Pairs(energy, x_pos.requires_grad_(), x_neg, t))
    # Data: (1*1 + 2*3) / 2; chains: (5*1 - 1*3) / 2.
    assert term.value.item() == 3.5 - 1.0
    assert term.value.requires_grad
    expected = {"contrastive_divergence": 2.5, "energy_data": 3.5, "energy_samples": 1.0}
    assert {name: value.item() for name, value in term.metrics.items()} == expected
    assert not any(value.requires_grad for value in term.metrics.values())
    assert len(calls) == 2
    assert all(torch.equal(seen, t) for seen in calls)


class TestContrastiveDivergenceContract(ObjectiveContract):
    component = ContrastiveDivergence
