"""The yardstick: Algorithm 1, as corrected in docs/method.md, in plain eager float32 PyTorch, without ebmkit.

    python benchmarks/reference.py

trains a small network on made-up images. `ebmkit bench` builds a recipe's own network and compares with this.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Settings:
    """What Algorithm 1 leaves open. `step_sizes` (eta) and `sigmas` are `[T, K]`; their first row belongs to t = T."""

    step_sizes: Tensor
    sigmas: Tensor
    batch_size: int
    buffer_size: int = 10_000
    penalty_weight: float = 200.0
    one_sided: bool = True
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    flip: bool = False


class Reference:
    """Trains `energy(x[B, C, H, W], t[B]) -> [B]` on uint8 `images[N, C, H, W]`, and samples from its average.

    The energy has to be the same in training and in evaluation mode. Everything lies on the images' device.
    """

    def __init__(self, energy: nn.Module, images: Tensor, settings: Settings) -> None:
        self.energy, self.images, self.settings = energy, images, settings
        self.device, self.shape, self.time_steps = images.device, images.shape[1:], len(settings.sigmas)
        self.step_sizes, self.sigmas = settings.step_sizes.to(self.device), settings.sigmas.to(self.device)
        self.parameters = list(energy.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        self.ema = copy.deepcopy(energy).requires_grad_(False)
        self.averages = list(self.ema.parameters())
        self.buffer_x = torch.randn(settings.buffer_size, *self.shape, device=self.device)
        self.buffer_t = torch.randint(1, self.time_steps + 1, (settings.buffer_size,), device=self.device)

    def train_step(self) -> Tensor:
        """One step; returns the loss, detached, without waiting for the device."""
        batch_size = self.settings.batch_size
        slots = torch.randperm(len(self.buffer_t), device=self.device)[:batch_size]
        t = self.buffer_t[slots]
        # Parameters that need no gradient save the sampler's graphs some memory, and about a percent of the time.
        self.energy.requires_grad_(False)
        x_neg = self.refine(self.energy, self.buffer_x[slots], t)
        self.energy.requires_grad_(True)
        x_pos = self.real_images(batch_size)
        a = torch.rand(batch_size, 1, 1, 1, device=self.device)
        loss = self.loss(x_pos, x_neg, t, a * x_neg + (1 - a) * x_pos)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        torch._foreach_lerp_(self.averages, self.parameters, 1 - self.settings.ema_decay)
        ended = t == 1
        self.buffer_t[slots] = torch.where(ended, self.time_steps, t - 1)
        self.buffer_x[slots] = torch.where(ended.view(-1, 1, 1, 1), torch.randn_like(x_neg), x_neg)
        return loss.detach()

    def real_images(self, count: int) -> Tensor:
        """`count` images in [-1, 1], each mirrored with probability 1/2 if the settings say so."""
        chosen = torch.randint(len(self.images), (count,), device=self.device)
        x = self.images[chosen].float() / 127.5 - 1
        if self.settings.flip:
            mirrored = torch.rand(count, 1, 1, 1, device=self.device) < 0.5
            x = torch.where(mirrored, x.flip(-1), x)
        return x

    def loss(self, x_pos: Tensor, x_neg: Tensor, t: Tensor, x_hat: Tensor) -> Tensor:
        """Contrastive divergence (eq. 16) and the gradient penalty at `x_hat` (eq. 18 or 19)."""
        divergence = self.energy(x_pos, t).mean() - self.energy(x_neg, t).mean()
        x_hat = x_hat.requires_grad_()
        (gradient,) = torch.autograd.grad(self.energy(x_hat, t).sum(), x_hat, create_graph=True)
        excess = gradient.flatten(1).norm(dim=1) - 1
        if self.settings.one_sided:
            excess = excess.relu()
        return divergence + self.settings.penalty_weight * excess.square().mean()

    def refine(self, energy: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        """K Langevin steps (eq. 9) from `x` at `t[B]`."""
        row = self.time_steps - t
        step_sizes, sigmas = (table[row].view(len(x), -1, 1, 1, 1) for table in (self.step_sizes, self.sigmas))
        for k in range(step_sizes.shape[1]):
            x = x - step_sizes[:, k] / 2 * gradient(energy, x, t) + sigmas[:, k] * torch.randn_like(x)
        return x

    def sample(self, count: int) -> Tensor:
        """`count` images `[count, C, H, W]`: one sweep t = T, ..., 1 from N(0, I), with the averaged weights."""
        x = torch.randn(count, *self.shape, device=self.device)
        for t in range(self.time_steps, 0, -1):
            x = self.refine(self.ema, x, torch.full((count,), t, device=self.device))
        return x


def gradient(energy: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """`grad_x f(x, t)`, `[B, C, H, W]`."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(energy(x, t).sum(), x)[0]


class _Small(nn.Module):
    """A network for the trial below; it has no use for t."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(1024, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(x)[:, 0]


def main() -> None:
    """Train on bright squares, and print the loss now and then."""
    torch.set_num_threads(1)
    images = torch.zeros(256, 1, 8, 8, dtype=torch.uint8)
    images[:, :, 2:6, 2:6] = 255
    trial = Reference(_Small(), images, Settings(torch.full((5, 3), 1.5), torch.full((5, 3), 0.05), batch_size=64))
    for step in range(1, 201):
        loss = trial.train_step()
        if step % 50 == 0:
            print(f"step {step}: loss {float(loss):.3f}")  # noqa: T201
    print(f"samples: {tuple(trial.sample(16).shape)}")  # noqa: T201


if __name__ == "__main__":
    main()
