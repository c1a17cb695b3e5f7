"""Faults of energy networks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ebmkit import (
    Energy,
    EnergyModel,
)
from faulty_components.common import FAULTS, breaks


class Network(EnergyModel):
    def __init__(self, shape: tuple[int, int, int], time_steps: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 8, 3, padding=1)
        self.time = nn.Embedding(time_steps + 1, 8)
        self.act = nn.SiLU()
        self.out = nn.Linear(8, 1)

    def features(self, x: Tensor, t: Tensor) -> Tensor:
        h: Tensor = self.act(self.conv(x) + self.time(t)[:, :, None, None])
        return h

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        energy: Tensor = self.out(self.features(x, t).mean((2, 3))).squeeze(1)
        return energy


class GoodEnergy(Energy):
    """A small network."""

    name = "good"
    network: ClassVar[type[Network]] = Network

    def build(self) -> EnergyModel:
        return self.network(self.context.image_shape, self.context.time_steps)


@breaks("gives one energy for each image", "forward gives [1, 1] for 1 images, but must give [1]")
class KeepsAColumn(GoodEnergy):
    """Forgets to squeeze."""

    class network(Network):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(x, t)[:, None]


@breaks("each image is by itself", "no batch norm")
class NormalizesTheBatch(GoodEnergy):
    """Has batch norm."""

    class network(Network):
        def __init__(self, shape: tuple[int, int, int], time_steps: int) -> None:
            super().__init__(shape, time_steps)
            self.norm = nn.BatchNorm2d(8)

        def features(self, x: Tensor, t: Tensor) -> Tensor:
            norm: Tensor = self.norm(super().features(x, t))
            return norm


# In evaluation mode batch norm looks at no other image: the rule must look at training mode, too.
FAULTS[-1] = FAULTS[-1]._replace(message="use layer or group norm instead of batch norm")


@breaks("each image is by itself", "nothing that looks across samples")
class ComparesImages(GoodEnergy):
    """Subtracts the batch's mean."""

    class network(Network):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            energy = super().forward(x, t)
            return energy - energy.mean() / 2


@breaks("evaluation mode is deterministic", "draws from torch's global random state")
class DropsOutAlways(GoodEnergy):
    """Is random in evaluation mode."""

    class network(Network):
        def features(self, x: Tensor, t: Tensor) -> Tensor:
            return nn.functional.dropout(super().features(x, t), 0.5, training=True)


@breaks("evaluation mode is deterministic", "forward in evaluation mode changes calls")
class CountsCalls(GoodEnergy):
    """Changes a buffer in evaluation mode."""

    class network(Network):
        def __init__(self, shape: tuple[int, int, int], time_steps: int) -> None:
            super().__init__(shape, time_steps)
            self.calls: Tensor
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x, t)


@breaks("the gradient by the image is right", "the energy cannot be differentiated by the image")
class DetachesImages(GoodEnergy):
    """Cuts the gradient."""

    class network(Network):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.features(x, t).mean((2, 3))
            energy: Tensor = self.out(h).squeeze(1)
            return energy


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@breaks("the gradient by the image is right", "a custom backward is wrong")
class HasAWrongBackward(GoodEnergy):
    """Doubles the image, but not the gradient."""

    class network(Network):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(WrongBackward.apply(x), t)


class FirstOrderSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.detach())
        return x.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * gradient.detach()


@breaks("can be differentiated twice", "twice_differentiable = False")
class LosesTheSecondDerivative(GoodEnergy):
    """Has a backward that cannot be differentiated, and does not say so."""

    class network(Network):
        def features(self, x: Tensor, t: Tensor) -> Tensor:
            return FirstOrderSquare.apply(super().features(x, t))


@breaks("follows its device", "Register fixed tensors by register_buffer")
class HidesATensor(GoodEnergy):
    """Keeps a tensor as a plain attribute."""

    class network(Network):
        def __init__(self, shape: tuple[int, int, int], time_steps: int) -> None:
            super().__init__(shape, time_steps)
            self.weights = torch.linspace(0.5, 1.5, 8).view(1, 8, 1, 1)

        def features(self, x: Tensor, t: Tensor) -> Tensor:
            return super().features(x, t) * self.weights.to(x.dtype)


@breaks("the state dict is everything", "neither a parameter nor a buffer")
class ForgetsAWeight(GoodEnergy):
    """Draws a number that no state_dict holds."""

    class network(Network):
        def __init__(self, shape: tuple[int, int, int], time_steps: int) -> None:
            super().__init__(shape, time_steps)
            self.factor = float(torch.rand(()) + 0.5)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.factor * super().forward(x, t)


@breaks("the same seed builds the same network", "initialise from torch only")
class InitializesFromNumpy(GoodEnergy):
    """Takes weights from numpy's global generator."""

    class network(Network):
        def __init__(self, shape: tuple[int, int, int], time_steps: int) -> None:
            super().__init__(shape, time_steps)
            with torch.no_grad():
                self.out.bias.fill_(np.random.randn())


@breaks("works at other image sizes", "Take the sizes from context.image_shape")
class FitsOneSize(GoodEnergy):
    """Was made for squares of 16 pixels."""

    class network(Network):
        def __init__(self, shape: tuple[int, int, int], time_steps: int) -> None:
            super().__init__(shape, time_steps)
            self.map = nn.Linear(8 * 16 * 16, 8)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            energy: Tensor = self.out(self.map(self.features(x, t).flatten(1))).squeeze(1)
            return energy


@breaks("builds a float32 network on the cpu", "build in float32")
class BuildsInHalf(GoodEnergy):
    """Chooses the precision itself."""

    def build(self) -> EnergyModel:
        return super().build().double()


@breaks("builds a float32 network on the cpu", "no parameter that can be trained")
class IsFrozen(GoodEnergy):
    """Has nothing to train."""

    def build(self) -> EnergyModel:
        return super().build().requires_grad_(False)


@breaks("forward leaves no trace", "changes the images in place")
class ClampsInPlace(GoodEnergy):
    """Changes its argument."""

    class network(Network):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            if not x.requires_grad:
                x.clamp_(-1, 1)
            return super().forward(x, t)


@breaks("builds a float32 network on the cpu", "must return an ebmkit.EnergyModel, not Sequential")
class ReturnsAnyModule(GoodEnergy):
    """Builds something else."""

    def build(self) -> Any:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(1))


@breaks("forward leaves no trace", "forward switches the network to evaluation mode")
class SwitchesToEvaluation(GoodEnergy):
    """Calls eval() on itself."""

    class network(Network):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.eval()
            return super().forward(x, t)


@breaks("forward leaves no trace", "forward makes the caller's images require gradients")
class AsksForGradients(GoodEnergy):
    """Has the caller's images require gradients."""

    class network(Network):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                x.requires_grad_()
            return super().forward(x, t)


@breaks("forward leaves no trace", "forward changes the time steps in place")
class CountsTimeFromZero(GoodEnergy):
    """Subtracts 1 from the caller's time steps."""

    class network(Network):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            t.sub_(1).clamp_(min=0)
            return super().forward(x, t)


@breaks("the state dict is everything", "lost in model files and when a run is resumed")
class KeepsARunningMean(GoodEnergy):
    """Centres by a running mean that is a plain number."""

    class network(Network):
        mean = 0.0

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            energy = super().forward(x, t)
            if self.training and not energy.is_meta:
                self.mean = 0.9 * self.mean + 0.1 * float(energy.detach().mean())
            return energy - self.mean


@breaks("training draws from torch only", "draws from numpy's global random state")
class DropsOutByNumpy(GoodEnergy):
    """Draws its dropout from numpy."""

    class network(Network):
        def features(self, x: Tensor, t: Tensor) -> Tensor:
            h = super().features(x, t)
            return h * float(np.random.rand() < 0.5) if self.training else h


@breaks("training draws from torch only", "in training mode energies differ at one torch seed")
class DropsOutByChance(GoodEnergy):
    """Draws its dropout from a generator that nobody seeds."""

    class network(Network):
        def features(self, x: Tensor, t: Tensor) -> Tensor:
            h = super().features(x, t)
            return h * float(np.random.default_rng().random()) if self.training else h


@breaks("follows the type of its parameters", "convert what is made of t: .to(x.dtype)")
class EmbedsTimeInFloat32(GoodEnergy):
    """Makes a float32 embedding of t, whatever the type of its weights."""

    class network(Network):
        def __init__(self, shape: tuple[int, int, int], time_steps: int) -> None:
            super().__init__(shape, time_steps)
            self.wave = nn.Linear(1, 8)

        def features(self, x: Tensor, t: Tensor) -> Tensor:
            return super().features(x, t) + self.wave(torch.sin(t.float())[:, None])[:, :, None, None]


@breaks("follows the type of its parameters", "energies are float32")
class AnswersInFloat32(GoodEnergy):
    """Rounds its energies to float32."""

    class network(Network):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(x, t).float()


@breaks("builds a float32 network on the cpu", "build changes the default type of the process")
class SetsTheDefaultType(GoodEnergy):
    """Builds in float64, and leaves that type for everybody."""

    def build(self) -> EnergyModel:
        model = super().build()
        torch.set_default_dtype(torch.float64)
        return model


@breaks("each image is by itself", "nothing that looks across samples")
class ComparesBehindAZero(GoodEnergy):
    """Subtracts the batch's mean before an output layer that begins at zero."""

    class network(Network):
        def __init__(self, shape: tuple[int, int, int], time_steps: int) -> None:
            super().__init__(shape, time_steps)
            nn.init.zeros_(self.out.weight)

        def features(self, x: Tensor, t: Tensor) -> Tensor:
            h = super().features(x, t)
            return h - h.mean(0, keepdim=True) / 2
