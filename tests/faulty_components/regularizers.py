"""Faults of regularizers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ebmkit import (
    BaseOptions,
    EnergyModel,
    Pairs,
    Regularizer,
    Term,
)
from faulty_components.common import breaks


class GoodRegularizer(Regularizer):
    """R1."""

    name = "good"
    needs_double_backward = True

    class Options(BaseOptions):
        """Options."""

        weight: float = Field(default=10.0, ge=0, description="Weight.")

    options: Options

    def squared(self, pairs: Pairs, create_graph: bool = True) -> Tensor:
        x = pairs.x_pos.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(pairs.energy(x, pairs.t).sum(), x, create_graph=create_graph)
        return gradient.square().sum((1, 2, 3))

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        value = self.options.weight / 2 * self.squared(pairs).mean()
        return Term(value, {"penalty": value.detach()})


@breaks("the penalty is a term", "has no graph to the parameters")
class ForgetsCreateGraph(GoodRegularizer):
    """Has a penalty without a graph."""

    def squared(self, pairs: Pairs, create_graph: bool = True) -> Tensor:
        return super().squared(pairs, create_graph=False)


@breaks("the penalty trains the parameters", "create_graph=True is missing")
class ForgetsCreateGraphInPart(GoodRegularizer):
    """Has a graph through the energies only."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        value = self.squared(pairs, create_graph=False).mean() * pairs.energies[0].mean()
        return Term(value, {})


@breaks("the penalty is a term", "reduce it by .mean() or .sum()")
class KeepsTheBatch(GoodRegularizer):
    """Has one value for each image."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        return Term(self.squared(pairs), {})


@breaks("the penalty is a term", "keeps its graph, and with it the memory")
class LogsAGraph(GoodRegularizer):
    """Forgets to detach a metric."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        value = self.squared(pairs).mean()
        return Term(value, {"penalty": value})


@breaks("the penalty is a term", "must return an ebmkit.Term, not Tensor")
class ReturnsATensor(GoodRegularizer):
    """Returns the bare value."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Any:
        return self.squared(pairs).mean()


@breaks("double backward is declared", "set needs_double_backward = True")
class HidesDoubleBackward(GoodRegularizer):
    """Differentiates a gradient and does not say so."""

    needs_double_backward = False


@breaks("double backward is declared", "set it to False")
class BoastsDoubleBackward(GoodRegularizer):
    """Says that it differentiates a gradient and does not."""

    def squared(self, pairs: Pairs, create_graph: bool = True) -> Tensor:
        return pairs.energies[0].square()


@breaks("randomness comes from the generator", "draws from torch's global random state")
class DropsAtRandom(GoodRegularizer):
    """Weighs images by the global generator."""

    def squared(self, pairs: Pairs, create_graph: bool = True) -> Tensor:
        return super().squared(pairs) * torch.rand(len(pairs.t), dtype=pairs.x_pos.dtype)


@breaks("randomness comes from the generator", "draws from Python's global random state")
class DropsAtPythonRandom(GoodRegularizer):
    """Weighs images by Python's generator."""

    def squared(self, pairs: Pairs, create_graph: bool = True) -> Tensor:
        return super().squared(pairs) * (0.5 + random.random())


@breaks("randomness comes from the generator", "keep nothing on self")
class RemembersTheLast(GoodRegularizer):
    """Averages over calls, which no checkpoint saves."""

    last = 0.0

    def squared(self, pairs: Pairs, create_graph: bool = True) -> Tensor:
        value = super().squared(pairs) + self.last
        self.last = float(value.detach().mean())
        return value


@breaks("the penalty leaves no trace", "leaves gradients at the parameters")
class Accumulates(GoodRegularizer):
    """Calls backward itself."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        pairs.energy(pairs.x_pos, pairs.t).sum().backward()
        return super().penalty(pairs, generator)


@breaks("the penalty leaves no trace", "changes pairs.x_neg in place")
class ChangesPairs(GoodRegularizer):
    """Clamps the chains in place."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        pairs.x_neg.clamp_(-1, 1)
        return super().penalty(pairs, generator)


@breaks("the penalty leaves no trace", "changes pairs.slots in place")
class ChangesSlots(GoodRegularizer):
    """Zeroes the slots that the chains go back to."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        assert pairs.slots is not None
        pairs.slots.zero_()
        return super().penalty(pairs, generator)


@breaks("the penalty leaves no trace", "switches the network to evaluation mode")
class SwitchesMode(GoodRegularizer):
    """Leaves the network in evaluation mode."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        assert isinstance(pairs.energy, nn.Module)
        pairs.energy.eval()
        return super().penalty(pairs, generator)


@breaks("does something", "it does nothing")
class DoesNothing(Regularizer):
    """Has neither a penalty nor a structure."""

    name = "nothing"


@breaks("prepare declares what it does to the state dict", "set changes_state_dict = True")
class HidesParameters(Regularizer):
    """Adds parameters and does not say so."""

    name = "hides"

    def prepare(self, model: EnergyModel) -> None:
        for module in list(model.modules()):
            if isinstance(module, nn.Conv2d):
                torch.nn.utils.parametrizations.spectral_norm(module)


@breaks("the penalty leaves no trace", "changes pairs.extra['noised']")
class ChangesExtra(GoodRegularizer):
    """Centres what the objective has prepared for itself."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        for value in pairs.extra.values():
            value -= 1
        return super().penalty(pairs, generator)


@breaks("the penalty leaves no trace", "changes pairs.energies")
class ChangesEnergies(GoodRegularizer):
    """Centres the energies for everybody."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        with torch.no_grad():
            pairs.energies[0].sub_(1)
        return super().penalty(pairs, generator)


@breaks("prepare draws from torch only", "draws from numpy's global random state")
class PreparesByNumpy(GoodRegularizer):
    """Moves the weights by numpy's global generator."""

    def moved(self) -> float:
        return float(np.random.rand())

    def prepare(self, model: EnergyModel) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 0.1 * self.moved())


@breaks("prepare draws from torch only", "at one torch seed")
class PreparesByChance(PreparesByNumpy):
    """Moves the weights by a generator that nobody seeds."""

    def moved(self) -> float:
        return random.Random().random()


@breaks("the gradient bound is a norm", "must be None or a finite number above 0, not -1")
class BoundsByMinusOne(GoodRegularizer):
    """Has a bound that is no norm."""

    @classmethod
    def gradient_bound(cls, options: Any) -> float | None:
        return -1.0
