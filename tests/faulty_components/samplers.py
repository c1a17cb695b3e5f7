"""Faults of samplers."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ebmkit import (
    BaseOptions,
    Context,
    EnergyFunction,
    NoiseSource,
    Sampler,
    SweepBudget,
)
from faulty_components.common import breaks


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
