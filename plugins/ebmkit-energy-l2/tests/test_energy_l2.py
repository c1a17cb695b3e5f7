"""The L2 penalty on energies."""

from __future__ import annotations

import pytest
import torch
from ebmkit_contrastive.objective import ContrastiveDivergence
from ebmkit_energy_l2.regularizer import EnergyL2
from torch import Tensor

from ebmkit import Context, Pairs

CONTEXT = Context((1, 1, 1), 1)


def pairs(calls: list[int]) -> Pairs:
    def energy(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return x.flatten(1).sum(1)

    def images(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)

    return Pairs(energy, images(1.0, 3.0), images(-2.0, 0.0), torch.ones(2, dtype=torch.int64))


def test_it_is_the_closed_form() -> None:
    term = EnergyL2(EnergyL2.Options(weight=0.5), CONTEXT).penalty(pairs([]), torch.Generator())
    assert term.value.item() == pytest.approx(0.5 * ((1 + 9) / 2 + (4 + 0) / 2))
    assert term.metrics["penalty"].item() == term.value.item()


def test_it_uses_the_energies_of_the_objective() -> None:
    calls: list[int] = []
    batch = pairs(calls)
    ContrastiveDivergence(ContrastiveDivergence.Options(), CONTEXT).loss(batch)
    EnergyL2(EnergyL2.Options(), CONTEXT).penalty(batch, torch.Generator())
    assert calls == [2, 2]
