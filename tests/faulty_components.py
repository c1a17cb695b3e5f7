"""Deliberately broken components: each has one fault, and `FAULTS` says which rule must find it and in which words.

The classes that begin with `Good` have none; the others change one thing of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from ebmkit import (
    BaseOptions,
    Buffer,
    BufferedObjective,
    Component,
    Context,
    Draw,
    Energy,
    EnergyFunction,
    EnergyModel,
    NoiseSource,
    Pairs,
    Regularizer,
    Sampler,
    Schedule,
    SweepBudget,
    Term,
    Tracker,
    hookimpl,
)
from ebmkit.noise import generator as noise_generator


class Fault(NamedTuple):
    """A broken class, the rule that it breaks, and a part of the message."""

    component: type[Any]
    rule: str
    message: str


FAULTS: list[Fault] = []


def breaks(rule: str, message: str) -> Any:
    """Mark a class as breaking this rule."""

    def mark(component: type[Any]) -> type[Any]:
        FAULTS.append(Fault(component, rule, message))
        return component

    return mark


# --- energies --------------------------------------------------------------------------------------------------------


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


# --- samplers --------------------------------------------------------------------------------------------------------


class GoodSampler(Sampler):
    """Langevin with one step size."""

    name = "good"

    class Options(BaseOptions):
        """Options."""

        steps: int = Field(default=2, ge=1, description="K.")
        step_size: float = Field(default=1.0, gt=0, description="eta.")
        noise: float = Field(default=0.1, ge=0, description="sigma.")

    options: Options

    @property
    def steps(self) -> int:
        return self.options.steps

    def gradient(self, energy: EnergyFunction, x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(energy(x, t).sum(), x)
        return gradient

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        for _ in range(self.steps):
            x = x - self.options.step_size / 2 * self.gradient(energy, x, t) + self.added(x, noise)
        return x.detach()

    def added(self, x: Tensor, noise: NoiseSource) -> Tensor:
        return self.options.noise * noise.normal_like(x)

    @classmethod
    def sweep_budget(cls, options: Any, context: Context) -> SweepBudget | None:
        count = context.time_steps * options.steps
        return SweepBudget(count * options.step_size / 2, count * options.noise**2)


@breaks("a sweep goes down the energy", "sampling descends")
class Climbs(GoodSampler):
    """Has the sign the wrong way round."""

    def gradient(self, energy: EnergyFunction, x: Tensor, t: Tensor) -> Tensor:
        return -super().gradient(energy, x, t)


@breaks("all randomness comes from the noise source", "draws from torch's global random state")
class DrawsGlobally(GoodSampler):
    """Uses torch.randn_like."""

    def added(self, x: Tensor, noise: NoiseSource) -> Tensor:
        return self.options.noise * torch.randn_like(x)


@breaks("leaves no trace", "refine leaves gradients at the parameters")
class GoesBackward(GoodSampler):
    """Uses backward()."""

    def gradient(self, energy: EnergyFunction, x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy(x, t).sum().backward()
        assert x.grad is not None
        return x.grad


@breaks("leaves no trace", "refine changes its images in place")
class WorksInPlace(GoodSampler):
    """Changes the caller's images."""

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        x -= self.options.step_size / 2 * self.gradient(energy, x, t) + self.added(x, noise)
        return super().refine(energy, x, t, noise)


@breaks("leaves no trace", "refine changes the network's mode or requires_grad")
class LeavesParametersFrozen(GoodSampler):
    """Freezes the energy and forgets to thaw it."""

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        assert isinstance(energy, nn.Module)
        energy.requires_grad_(False)
        return super().refine(energy, x, t, noise)


@breaks("returns new detached images", "refine returns images with a graph")
class KeepsTheGraph(GoodSampler):
    """Does not detach."""

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        with torch.enable_grad():
            return super().refine(energy, x, t, noise).requires_grad_() * 1


@breaks("works with gradients switched off", "torch.enable_grad()")
class NeedsGradMode(GoodSampler):
    """Counts on gradients being switched on."""

    def gradient(self, energy: EnergyFunction, x: Tensor, t: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x, t).sum(), x)
        return gradient


@breaks("each image is by itself", "differentiate the sum of the energies")
class DividesByTheBatch(GoodSampler):
    """Differentiates the mean of the energies."""

    def gradient(self, energy: EnergyFunction, x: Tensor, t: Tensor) -> Tensor:
        return super().gradient(energy, x, t) / len(x)


@breaks("time steps may differ within a batch", "pass t on as it is")
class LooksAtOneTimeStep(GoodSampler):
    """Takes the first image's time step for all."""

    def gradient(self, energy: EnergyFunction, x: Tensor, t: Tensor) -> Tensor:
        return super().gradient(energy, x, t[:1].expand(len(t)))


@breaks("time steps may differ within a batch", "pass t on as it is")
class AsksAtTheEnd(GoodSampler):
    """Asks the energy at t = 1 always."""

    def gradient(self, energy: EnergyFunction, x: Tensor, t: Tensor) -> Tensor:
        return super().gradient(energy, x, torch.ones_like(t))


@breaks("keeps no state between calls", "keep nothing on self")
class RemembersMomentum(GoodSampler):
    """Carries a velocity over to the next call."""

    velocity: Tensor | float = 0.0

    def gradient(self, energy: EnergyFunction, x: Tensor, t: Tensor) -> Tensor:
        before = self.velocity if isinstance(self.velocity, Tensor) and self.velocity.shape == x.shape else 0.0
        self.velocity = 0.5 * before + super().gradient(energy, x, t)
        return self.velocity


@breaks("steps counts gradient evaluations", "steps is 2, but refine evaluates the energy 6 times")
class CountsWrong(GoodSampler):
    """Evaluates the energy three times in a step."""

    def gradient(self, energy: EnergyFunction, x: Tensor, t: Tensor) -> Tensor:
        energy(x, t)
        energy(x, t)
        return super().gradient(energy, x, t)


@breaks("the sweep budget is true", "but sweep_budget says 8")
class ForgetsTheHalf(GoodSampler):
    """Budgets eta instead of eta / 2."""

    @classmethod
    def sweep_budget(cls, options: Any, context: Context) -> SweepBudget | None:
        count = context.time_steps * options.steps
        return SweepBudget(count * options.step_size, count * options.noise**2)


@breaks("the sweep budget is true", "return the sum of sigma^2")
class BudgetsTheDeviation(GoodSampler):
    """Adds up standard deviations."""

    @classmethod
    def sweep_budget(cls, options: Any, context: Context) -> SweepBudget | None:
        count = context.time_steps * options.steps
        return SweepBudget(count * options.step_size / 2, count * options.noise)


@breaks("follows its device", "read no value")
class ReadsTheTimeStep(GoodSampler):
    """Waits for the device."""

    def added(self, x: Tensor, noise: NoiseSource) -> Tensor:
        return super().added(x, noise) * (0.0 if bool((x > 1e9).any()) else 1.0)


# --- buffers ---------------------------------------------------------------------------------------------------------


class GoodBuffer(Buffer):
    """Cycles through the time steps."""

    name = "good"

    class Options(BaseOptions):
        """Options."""

        size: int = Field(default=100, ge=1, description="Slots over all ranks.")

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        super().__init__(options, context)
        count = options.size // context.world_size + (context.rank < options.size % context.world_size)
        random = self.start(context)
        self.x = torch.randn(count, *context.image_shape, generator=random)
        self.t = torch.randint(1, context.time_steps + 1, (count,), generator=random)

    def start(self, context: Context) -> torch.Generator:
        return noise_generator(context.device, context.seed, "good", context.rank)

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        if n > len(self.t):
            raise ValueError(f"{len(self.t)} slots, fewer than {n}")
        return torch.randperm(len(self.t), generator=generator)[:n]

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        slots = self.choose(n, generator)
        return Draw(slots, self.x[slots], self.t[slots])

    def store(self, slots: Tensor, x: Tensor) -> None:
        self.x[slots] = x
        self.t[slots] = self.next(self.t[slots])

    def next(self, t: Tensor) -> Tensor:
        return torch.where(t > 1, t - 1, self.context.time_steps)

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x, "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pairs = ((self.x, state["x"]), (self.t, state["t"]))
        if any(own.shape != given.shape for own, given in pairs):
            raise ValueError("another size")
        for own, given in pairs:
            own.copy_(given)


@breaks("draws chains", "time steps must be in 1..4, but go from 0")
class CountsFromZero(GoodBuffer):
    """Has time steps 0..T-1."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.t -= 1


@breaks("slots of a draw are different", "draw without replacement")
class DrawsWithReplacement(GoodBuffer):
    """Draws a slot twice now and then."""

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        super().choose(n, generator)
        return torch.randint(len(self.t), (n,), generator=generator)


@breaks("randomness comes from the generator", "draws from torch's global random state")
class IgnoresTheGenerator(GoodBuffer):
    """Permutes by the global generator."""

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        super().choose(n, generator)
        return torch.randperm(len(self.t))[:n]


@breaks("the caller may change what it draws", "draw must give copies")
class GivesViews(GoodBuffer):
    """Gives its own memory."""

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        slots = super().draw(n, generator).slots
        first = int(slots[0]) if n == 1 else 0
        return Draw(torch.arange(first, first + n), self.x[first : first + n], self.t[first : first + n])


@breaks("every time step is visited", "the energy would never be trained at the others")
class SticksAtTheEnd(GoodBuffer):
    """Begins at T and moves by two."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.t.fill_(context.time_steps)

    def next(self, t: Tensor) -> Tensor:
        return torch.where(t > 2, t - 2, self.context.time_steps)


@breaks("every time step is visited", "where t - 1 becomes 0, begin again at T")
class RunsBelowOne(GoodBuffer):
    """Never begins again."""

    def next(self, t: Tensor) -> Tensor:
        return t - 1


@breaks("stored images come back", "come back from another slot than they were stored in")
class MixesSlots(GoodBuffer):
    """Stores into sorted slots, images in the order of the draw."""

    def store(self, slots: Tensor, x: Tensor) -> None:
        super().store(slots.sort().values, x)


@breaks("store leaves other slots alone", "write to self.x[slots] only")
class OverwritesAll(GoodBuffer):
    """Fills every slot."""

    def store(self, slots: Tensor, x: Tensor) -> None:
        super().store(slots, x)
        self.x[:] = x[0]


@breaks("state round trip", "something that matters is not in state_dict()")
class ForgetsTimeSteps(GoodBuffer):
    """Saves the images only."""

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({"x": state["x"], "t": self.t})


@breaks("state round trip", "or rounded there")
class RoundsTheState(GoodBuffer):
    """Saves in half precision."""

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x.half(), "t": self.t}


@breaks("state round trip", "the state cannot be saved")
class SavesAnObject(GoodBuffer):
    """Puts a generator into its state."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "random": torch.Generator()}


@breaks("a state that does not fit is refused", "compare shapes, and raise ValueError")
class TakesAnything(GoodBuffer):
    """Loads a state of any size."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.x, self.t = state["x"].clone(), state["t"].clone()


@breaks("loading takes a copy", "two buffers share memory")
class SharesMemory(GoodBuffer):
    """Keeps the tensors that it is given."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.x, self.t = state["x"], state["t"]


@breaks("a state that does not fit is refused", "a refused state was taken in part")
class RefusesTooLate(GoodBuffer):
    """Copies the images before it looks at the time steps."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for own, given in ((self.x, state["x"]), (self.t, state["t"])):
            if own.shape != given.shape:
                raise ValueError("another size")
            own.copy_(given)


@breaks("store keeps a copy", "store keeps the caller's tensor")
class KeepsTheCallersTensor(GoodBuffer):
    """Keeps rows of the tensor that it is given."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.rows = list(self.x)

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        self.x = torch.stack(self.rows)
        return super().draw(n, generator)

    def store(self, slots: Tensor, x: Tensor) -> None:
        for slot, row in zip(slots.tolist(), x, strict=True):
            self.rows[slot] = row
        self.t[slots] = self.next(self.t[slots])

    def state_dict(self) -> dict[str, Any]:
        return {"x": torch.stack(self.rows), "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.rows = list(self.x.clone())


@breaks("begins by its seed and rank", "every rank begins with the same chains")
class IgnoresTheRank(GoodBuffer):
    """Begins the same on every rank."""

    def start(self, context: Context) -> torch.Generator:
        return noise_generator(context.device, context.seed, "good")


@breaks("more chains than slots are refused", "give each rank size / world_size slots")
class HoldsAllOnEachRank(GoodBuffer):
    """Has `size` slots on every rank."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(
            options, Context(context.image_shape, context.time_steps, rank=context.rank, seed=context.seed)
        )
        self.x = torch.randn(options.size, *context.image_shape, generator=self.start(context))


# --- regularizers ----------------------------------------------------------------------------------------------------


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


# --- schedules -------------------------------------------------------------------------------------------------------


class GoodSchedule(Schedule):
    """A line."""

    name = "good"

    class Options(BaseOptions):
        """Options."""

        start: float = Field(default=1.0, description="At 0.")
        end: float = Field(default=0.0, description="At 1.")

    options: Options

    def __call__(self, progress: float) -> float:
        return self.options.start + (self.options.end - self.options.start) * progress


@breaks("is pure", "a schedule keeps no state")
class CountsItsCalls(GoodSchedule):
    """Goes on by its number of calls."""

    calls = 0

    def __call__(self, progress: float) -> float:
        self.calls += 1
        return 1.0 / self.calls


@breaks("is pure", "draws from Python's global random state")
class Jitters(GoodSchedule):
    """Adds jitter."""

    def __call__(self, progress: float) -> float:
        return super().__call__(progress) + random.random()


@breaks("gives a finite number everywhere", "at progress 1 the value is inf (float)")
class DividesByTheRest(GoodSchedule):
    """Is infinite at the end."""

    def __call__(self, progress: float) -> float:
        return 1 / (1 - progress) if progress < 1 else float("inf")


@breaks("gives a finite number everywhere", "return a finite number")
class GivesATensor(GoodSchedule):
    """Gives a tensor."""

    def __call__(self, progress: float) -> Any:
        return torch.tensor(super().__call__(progress))


@breaks("is equal where its options are", "leave __eq__ and __hash__")
class ComparesByIdentity(GoodSchedule):
    """Is equal to itself alone."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


# --- objectives ------------------------------------------------------------------------------------------------------


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


# --- trackers --------------------------------------------------------------------------------------------------------


class GoodTracker(Tracker):
    """Appends a line for each step."""

    name = "good"
    file = "good.txt"

    @hookimpl
    def ebmkit_step_end(self, run: Any, step: int, metrics: Mapping[str, float]) -> None:
        with (run.folder / self.file).open("a") as file:
            file.write(f"{step} {metrics['loss']}\n")


@breaks("lives through a run", "ebmkit_step_end raises KeyError: 'energy_data'")
class CountsOnAMetric(GoodTracker):
    """Reads a metric that is not always there."""

    @hookimpl
    def ebmkit_step_end(self, metrics: Mapping[str, float]) -> None:
        metrics["energy_data"]


@breaks("lives through a run", "which belongs to ebmkit, was changed")
class WritesOurFile(GoodTracker):
    """Appends to metrics.jsonl."""

    file = "metrics.jsonl"


@breaks("lives through a run", "was written outside of the run folder")
class WritesElsewhere(GoodTracker):
    """Writes into the working directory."""

    file = "../../stray.txt"


@breaks("goes on after a kill", "going on with a run deletes good.txt")
class DeletesOnResume(GoodTracker):
    """Begins anew whenever training begins."""

    @hookimpl
    def ebmkit_train_begin(self, run: Any) -> None:
        (run.folder / self.file).unlink(missing_ok=True)


@breaks("hears of evaluations", "ebmkit_evaluation raises AttributeError")
class NeedsABegin(GoodTracker):
    """Opens its file in train_begin only."""

    @hookimpl
    def ebmkit_train_begin(self, run: Any) -> None:
        self.path = run.folder / self.file

    @hookimpl
    def ebmkit_evaluation(self, results: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(str(results))


@breaks("lives through a run", "changes the gradient mode of the process and leaves it changed")
class LeavesGradientsOff(GoodTracker):
    """Switches gradients off for good."""

    @hookimpl
    def ebmkit_step_end(self) -> None:
        torch.set_grad_enabled(False)


@breaks("lives through a run", "changes autocast of the process")
class LeavesAutocastOn(GoodTracker):
    """Enters autocast and never leaves it."""

    @hookimpl
    def ebmkit_samples_drawn(self) -> None:
        torch.autocast("cpu", torch.bfloat16).__enter__()


@breaks("uses no global random state", "draws from Python's global random state")
class NamesByChance(GoodTracker):
    """Draws a name for each step."""

    @hookimpl
    def ebmkit_step_end(self, run: Any, step: int) -> None:
        (run.folder / f"{step}-{random.randrange(10**6)}.txt").touch()


# --- every kind ------------------------------------------------------------------------------------------------------


@breaks("has a docstring", "give Undocumented a docstring")
class Undocumented(GoodSchedule):
    name = "undocumented"


@breaks("every option is described", "option 'start' has no description")
class UndescribedOption(GoodSchedule):
    """Does not say what its option means."""

    class Options(BaseOptions):
        """Options."""

        start: float = 1.0
        end: float = Field(default=0.0, description="At 1.")


@breaks("every option is described", "give it one, or an example")
class OptionWithoutExample(GoodSchedule):
    """Needs an option and gives no example."""

    class Options(BaseOptions):
        """Options."""

        start: float = Field(description="At 0.")
        end: float = Field(default=0.0, description="At 1.")


@breaks("options are strict and frozen", "changes 'extra' to 'ignore'")
class IgnoresUnknownKeys(GoodSchedule):
    """Takes any key."""

    class Options(BaseOptions):
        """Options."""

        model_config = ConfigDict(extra="ignore")
        start: float = Field(default=1.0, description="At 0.")
        end: float = Field(default=0.0, description="At 1.")


@breaks("options survive a recipe", "do not bind: options.start must be at least 0")
class DefaultOutOfBounds(GoodSchedule):
    """Has a default that its bounds refuse."""

    class Options(BaseOptions):
        """Options."""

        start: float = Field(default=-1.0, ge=0, description="At 0.")
        end: float = Field(default=0.0, description="At 1.")


@breaks("options survive a recipe", "do not bind")
class ListOption(GoodSchedule):
    """Has a list where options are tuples."""

    class Options(BaseOptions):
        """Options."""

        start: float = Field(default=1.0, description="At 0.")
        end: float = Field(default=0.0, description="At 1.")
        places: list[float] = Field(default_factory=lambda: [0.5], description="Places.")


@breaks("none is the default where it is allowed", "TOML has no null")
class NoneIsNotTheDefault(GoodRegularizer):
    """Has an option that may be None, but is something else by default."""

    class Options(BaseOptions):
        """Options."""

        weight: float = Field(default=10.0, description="Weight.")
        limit: float | None = Field(default=1.0, examples=[None], description="Limit.")


@breaks("problems are messages", "problems() must return a list of sentences")
class ProblemsIsASentence(GoodSampler):
    """Returns a bare string."""

    @classmethod
    def problems(cls, options: Any, context: Context) -> Any:
        return "" if context.image_shape[0] == 3 else "three channels only"


@breaks("is built without side effects", "draws from torch's global random state")
class DrawsWhenBuilt(GoodRegularizer):
    """Draws its direction from the global generator."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.direction = torch.randn(context.image_shape)


@breaks("is found by its name", "Return the class from the plugin's hook")
class Unregistered(GoodSampler):
    """Is returned by no hook."""

    name = "unregistered"


GOOD: list[type[Component] | type[Schedule]] = [
    GoodEnergy,
    GoodSampler,
    GoodBuffer,
    GoodRegularizer,
    GoodSchedule,
    GoodObjective,
    GoodTracker,
]
