"""Faults of objectives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ebmkit import (
    BufferedObjective,
    EnergyFunction,
    Pairs,
    Term,
)
from faulty_components.common import breaks


class GoodObjective(BufferedObjective):
    """Contrastive divergence."""

    name = "good"

    def loss(self, pairs: Pairs) -> Term:
        positive, negative = (energy.mean() for energy in pairs.energies)
        return Term(positive - negative, {"energy_data": positive.detach()})


@breaks("training lowers the energy of data", "mean f(x_pos) - mean f(x_neg)")
class RaisesData(GoodObjective):
    """Has the loss as printed in Algorithm 1."""

    def loss(self, pairs: Pairs) -> Term:
        return Term(-super().loss(pairs).value, {})


@breaks("the loss is a term", "has no graph to the parameters")
class DetachesTheLoss(GoodObjective):
    """Detaches the loss."""

    def loss(self, pairs: Pairs) -> Term:
        return Term(super().loss(pairs).value.detach(), {})


@breaks("the loss is a term", "has the name of one of ebmkit's own numbers")
class TakesAName(GoodObjective):
    """Calls a metric `step`."""

    def loss(self, pairs: Pairs) -> Term:
        return Term(super().loss(pairs).value, {"step": torch.zeros(())})


@breaks("gives whole pairs", "t must be in 1..4")
class ShiftsTime(GoodObjective):
    """Counts time steps from 0."""

    def pairs(self, *args: Any, **kwargs: Any) -> Pairs:
        pairs = super().pairs(*args, **kwargs)
        pairs.t = pairs.t - 1
        return pairs


@breaks("gives whole pairs", "pairs changes the real images in place")
class AugmentsInPlace(GoodObjective):
    """Mirrors the real images in place."""

    def pairs(self, energy: EnergyFunction, x_pos: Tensor, *args: Any) -> Pairs:
        x_pos.copy_(x_pos.flip(-1))
        return super().pairs(energy, x_pos, *args)


@breaks("gives whole pairs", "x_neg has a graph")
class TrainsThroughTheSampler(GoodObjective):
    """Keeps a graph to the chains."""

    def pairs(self, *args: Any) -> Pairs:
        pairs = super().pairs(*args)
        pairs.x_neg.requires_grad_()
        return pairs


@breaks("randomness comes from the generator", "draws from torch's global random state")
class AugmentsAtRandom(GoodObjective):
    """Adds noise from the global generator."""

    def pairs(self, energy: EnergyFunction, x_pos: Tensor, *args: Any) -> Pairs:
        return super().pairs(energy, x_pos + 0.01 * torch.randn_like(x_pos), *args)


@breaks("randomness comes from the generator", "keep nothing on self")
class CentresByAMovingMean(GoodObjective):
    """Subtracts a moving mean, which no checkpoint saves."""

    mean = 0.0

    def loss(self, pairs: Pairs) -> Term:
        value = super().loss(pairs).value
        self.mean = 0.9 * self.mean + 0.1 * float(value.detach()) + 0.1
        return Term(value * (1 + self.mean), {})


@breaks("double backward is declared", "set needs_double_backward = True")
class MatchesScores(GoodObjective):
    """Differentiates a gradient and does not say so."""

    def loss(self, pairs: Pairs) -> Term:
        x = pairs.x_neg.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(pairs.energy(x, pairs.t).sum(), x, create_graph=True)
        return Term(super().loss(pairs).value + 1e-3 * gradient.square().mean(), {})


@breaks("the loss leaves no trace", "changes pairs.extra['scale']")
class ChangesItsExtra(GoodObjective):
    """Decays what it has prepared, which a second look would not find again."""

    def pairs(self, *args: Any) -> Pairs:
        pairs = super().pairs(*args)
        pairs.extra["scale"] = torch.ones(())
        return pairs

    def loss(self, pairs: Pairs) -> Term:
        pairs.extra["scale"].mul_(0.5)
        return Term(super().loss(pairs).value * pairs.extra["scale"], {})


@breaks("the loss leaves no trace", "changes pairs.energies")
class CentresTheEnergies(GoodObjective):
    """Changes the energies that regularizers share."""

    def loss(self, pairs: Pairs) -> Term:
        term = super().loss(pairs)
        with torch.no_grad():
            pairs.energies[1].zero_()
        return term
