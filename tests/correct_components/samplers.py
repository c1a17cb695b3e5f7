"""Samplers that are exact, or accept and reject: none of them moves as Langevin steps with a small noise do."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ebmkit import BaseOptions, Context, EnergyFunction, NoiseSource, Sampler, SweepBudget


def value_and_gradient(energy: EnergyFunction, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = energy(x, t)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def squared(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1)


def accept(chance: Tensor, noise: NoiseSource, like: Tensor) -> Tensor:
    """Which images of the batch move, each by a number of its own; `chance` is a logarithm."""
    drawn = noise.uniform_like(like[:, :1, :1, :1]).flatten()
    return (drawn.log() < chance).view(-1, 1, 1, 1)


class ULA(Sampler):
    """Unadjusted Langevin at temperature 1: `x - eta / 2 * grad f + sqrt(eta) * noise`."""

    name = "ula"

    class Options(BaseOptions):
        """Options."""

        steps: int = Field(default=5, ge=1, description="K.")
        step_size: float = Field(default=0.02, gt=0, description="eta.")

    options: Options

    @property
    def steps(self) -> int:
        return self.options.steps

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        eta = self.options.step_size
        for _ in range(self.steps):
            x = x - eta / 2 * value_and_gradient(energy, x, t)[1] + eta**0.5 * noise.normal_like(x)
        return x.detach()

    @classmethod
    def sweep_budget(cls, options: Options, context: Context) -> SweepBudget | None:
        count = context.time_steps * options.steps
        return SweepBudget(count * options.step_size / 2, count * options.step_size)


class MALA(ULA):
    """Langevin steps that are accepted or rejected, image by image (Roberts & Tweedie 1996)."""

    name = "mala"

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        eta = self.options.step_size
        value, gradient = value_and_gradient(energy, x, t)
        for _ in range(self.steps):
            proposed = x - eta / 2 * gradient + eta**0.5 * noise.normal_like(x)
            new_value, new_gradient = value_and_gradient(energy, proposed, t)
            there = squared(proposed - x + eta / 2 * gradient)
            back = squared(x - proposed + eta / 2 * new_gradient)
            moves = accept(value - new_value + (there - back) / (2 * eta), noise, x)
            x = torch.where(moves, proposed, x)
            gradient = torch.where(moves, new_gradient, gradient)
            value = torch.where(moves.flatten(), new_value, value)
        return x.detach()

    @classmethod
    def sweep_budget(cls, options: ULA.Options, context: Context) -> SweepBudget | None:
        return None


class HMC(Sampler):
    """One trajectory of leapfrog steps, accepted or rejected (Neal 2011)."""

    name = "hmc"

    class Options(BaseOptions):
        """Options."""

        leapfrogs: int = Field(default=5, ge=1, description="Steps of a trajectory.")
        step_size: float = Field(default=0.1, gt=0, description="epsilon.")

    options: Options

    @property
    def steps(self) -> int:
        return self.options.leapfrogs

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        step, start = self.options.step_size, x
        first, gradient = value_and_gradient(energy, x, t)
        momentum = noise.normal_like(x)
        before, last = first + squared(momentum) / 2, first
        for _ in range(self.steps):
            momentum = momentum - step / 2 * gradient
            x = x + step * momentum
            last, gradient = value_and_gradient(energy, x, t)
            momentum = momentum - step / 2 * gradient
        after = last + squared(momentum) / 2
        return torch.where(accept(before - after, noise, start), x, start).detach()
