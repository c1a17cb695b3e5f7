"""The L2 penalty on energies: its closed form, and that it evaluates nothing again."""

from __future__ import annotations

import pytest
import torch
from ebmkit_energy_l2.regularizer import EnergyL2
from torch import Tensor

from ebmkit import Context, Pairs
from ebmkit.registry import default_registry
from ebmkit.testing import RegularizerContract

CONTEXT = Context((1, 1, 1), 2)


class Line:
    """`f(x, t) = w * x + t`, counted."""

    def __init__(self) -> None:
        self.w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.w * x.sum((1, 2, 3)) + t


def pairs(energy: Line) -> Pairs:
    x_pos = torch.tensor([1.0, -1.0], dtype=torch.float64).view(2, 1, 1, 1)
    x_neg = torch.tensor([0.0, 3.0], dtype=torch.float64).view(2, 1, 1, 1)
    return Pairs(energy, x_pos, x_neg, torch.tensor([1, 2]))


@pytest.mark.parametrize("weight", [1.0, 0.1, 0.0])
def test_it_is_the_weighted_mean_of_squares(weight: float) -> None:
    energy = Line()
    term = EnergyL2(EnergyL2.Options(weight=weight), CONTEXT).penalty(pairs(energy), torch.Generator())
    # Energies of data: 2 + 1, -2 + 2. Of chains: 0 + 1, 6 + 2.
    assert term is not None
    assert term.value.item() == pytest.approx(weight * (9 + 0 + 1 + 64) / 2)
    assert term.metrics["penalty"].item() == term.value.item()
    assert not term.metrics["penalty"].requires_grad
    term.value.backward()
    # d/dw mean f^2 = mean 2 f x: data (2*3*1 + 0) / 2, chains (0 + 2*8*3) / 2.
    assert energy.w.grad is not None
    assert energy.w.grad.item() == pytest.approx(weight * (3 + 24))


def test_objective_and_penalty_share_their_two_evaluations() -> None:
    energy = Line()
    shared = pairs(energy)
    objective = default_registry().component("objective", "contrastive_divergence")
    loss = objective(objective.Options(), CONTEXT).loss(shared).value
    term = EnergyL2(EnergyL2.Options(), CONTEXT).penalty(shared, torch.Generator())
    assert energy.calls == 2
    assert term is not None
    (loss + term.value).backward()
    assert energy.w.grad is not None
    # d/dw of the objective: mean x_pos - mean x_neg = 0 - 1.5
    assert energy.w.grad.item() == pytest.approx(27 - 1.5)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        EnergyL2.Options(weight=-1.0)
    assert EnergyL2.gradient_bound(EnergyL2.Options()) is None


class TestEnergyL2Contract(RegularizerContract):
    component = EnergyL2
