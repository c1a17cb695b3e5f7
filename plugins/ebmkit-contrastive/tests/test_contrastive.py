"""Contrastive divergence: above all, its sign."""

from __future__ import annotations

import torch
from ebmkit_buffers.cyclic import Cyclic
from ebmkit_contrastive.objective import ContrastiveDivergence
from ebmkit_langevin.sampler import Langevin
from torch import Tensor, nn

from ebmkit import Context, Draw, EnergyFunction, Pairs
from ebmkit.noise import GeneratorNoise

SHAPE = (1, 2, 2)
CONTEXT = Context(SHAPE, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        energy: Tensor = self.layers(x).squeeze(1)
        return energy


class RealChains:
    def __init__(self, energy: EnergyFunction, generator: torch.Generator) -> None:
        self.energy, self.generator = energy, generator
        self.buffer = Cyclic(Cyclic.Options(size=64), CONTEXT)
        self.sampler = Langevin(Langevin.Options(steps=2, step_size=0.5, noise=0.1), CONTEXT)

    def draw(self, n: int) -> Draw:
        return self.buffer.draw(n, self.generator)

    def refine(self, x: Tensor, t: Tensor, energy: EnergyFunction | None = None) -> Tensor:
        return self.sampler.refine(energy or self.energy, x, t, GeneratorNoise(self.generator))


def objective() -> ContrastiveDivergence:
    return ContrastiveDivergence(ContrastiveDivergence.Options(), CONTEXT)


def around(value: float, count: int = 64) -> Tensor:
    return value + 0.1 * torch.randn(count, *SHAPE)


def test_the_loss_is_equation_16_with_energy_low_on_data() -> None:
    def energy(x: Tensor, t: Tensor) -> Tensor:
        return x.flatten(1).sum(1)

    pairs = Pairs(energy, torch.full((2, *SHAPE), 1.0), torch.full((2, *SHAPE), 0.25), torch.ones(2, dtype=torch.int64))
    term = objective().loss(pairs)
    assert term.value.item() == 4.0 - 1.0
    assert term.metrics["energy_data"].item() == 4.0
    assert term.metrics["energy_samples"].item() == 1.0


def test_training_lowers_the_energy_of_data_and_chains_then_move_to_the_data() -> None:
    torch.manual_seed(0)
    net = Net()
    data, samples, t = around(1.0), around(-1.0), torch.ones(64, dtype=torch.int64)

    def gap() -> float:
        with torch.no_grad():
            return (net(data, t).mean() - net(samples, t).mean()).item()

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    before = gap()
    objective().loss(Pairs(net, data, samples, t)).value.backward()
    optimizer.step()
    assert gap() < before
    for _ in range(20):
        optimizer.zero_grad()
        objective().loss(Pairs(net, data, samples, t)).value.backward()
        optimizer.step()

    sampler = Langevin(Langevin.Options(steps=20, step_size=0.1, noise=0.0), Context(SHAPE, 1))
    start = around(0.0)
    end = sampler.refine(net, start, t, GeneratorNoise(torch.Generator().manual_seed(0)))
    assert (end - 1).square().mean() < (start - 1).square().mean()


def test_negatives_are_the_buffers_chains_refined_and_data_shares_their_time() -> None:
    torch.manual_seed(0)
    net, data = Net(), around(1.0, 16)
    labels = torch.arange(16)

    pairs = objective().pairs(net, data, labels, RealChains(net, torch.Generator().manual_seed(5)), torch.Generator())

    again = RealChains(net, torch.Generator().manual_seed(5))
    drawn = again.draw(16)
    assert torch.equal(pairs.t, drawn.t)
    assert len(pairs.t.unique()) > 1
    assert pairs.slots is not None
    assert torch.equal(pairs.slots, drawn.slots)
    assert torch.equal(pairs.x_neg, again.refine(drawn.x, drawn.t))
    assert not torch.equal(pairs.x_neg, drawn.x)
    # eq. 10: no noise is put on the data, whatever t is.
    assert pairs.x_pos is data
    assert pairs.labels is labels
