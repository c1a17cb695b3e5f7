"""The same network in torchebm, as its documentation would have it used."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torchebm.core import BaseModel
from torchebm.losses import ContrastiveDivergence
from torchebm.samplers import LangevinDynamics
from torchebm.utils.ema import EMA

from ebmkit.sampling import from_uint8
from ebmkit.trainer import Trainer


class FixedTime(BaseModel):
    """`f(x, 1)`, for torchebm, whose energies have no time step."""

    def __init__(self, network: nn.Module, device: str) -> None:
        super().__init__(device=device)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """`x[B, C, H, W] -> energy[B]`."""
        energy: Tensor = self.network(x, torch.ones(len(x), dtype=torch.int64, device=x.device))
        return energy


class Peer:
    """A copy of a trainer's network, with torchebm's sampler, loss and moving average, and as many Langevin steps.

    torchebm ties step size and noise, `x - h grad f + s sqrt(2 h) N(0, I)`; `h` and `s` are chosen so that the step is
    ebmkit's.
    """

    def __init__(self, trainer: Trainer, step_size: float, noise: float) -> None:
        recipe, device = trainer.recipe, trainer.device
        self.shape, self.steps, self.data = recipe.data.shape, trainer.sampler.steps, trainer.data
        self.network = copy.deepcopy(trainer.model)
        energy = FixedTime(self.network, device)
        self.sampler = LangevinDynamics(
            energy, step_size=step_size / 2, noise_scale=noise / math.sqrt(step_size), device=device
        )
        self.loss = ContrastiveDivergence(
            energy,
            self.sampler,
            k_steps=self.steps,
            persistent=True,
            buffer_size=recipe.buffer.options.size,
            new_sample_ratio=0.0,
            init_steps=0,
            energy_reg_weight=0.0,
            device=device,
        )
        options = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            options.learning_rate(0.0),
            options.betas,
            options.eps,
            options.weight_decay,
            fused=True,
        )
        self.ema = EMA(self.network, recipe.train.ema_decay)

    def draw(self, count: int) -> Tensor:
        """`count` images, on the CPU."""
        drawn: Tensor = self.sampler.sample(dim=self.shape, n_samples=count, n_steps=self.steps)
        return drawn.cpu()

    def refine(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """K steps from `x`."""
        refined: Tensor = self.sampler.sample(x=x, n_steps=self.steps, generator=generator)
        return refined

    def train_step(self) -> None:
        """One parameter update."""
        loss, _ = self.loss(from_uint8(self.data.next().images))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.network)
