"""Energies whose gradients, minima and distributions are known, and a small network; all are real `EnergyModel`s."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ebmkit.energy_model import EnergyModel
from ebmkit.layers import EnergyHead, ResidualBlock, TimeEmbedding, make_downsampling


class Bowl(EnergyModel):
    """`f(x, t) = |x - center - shift * t|^2 / (2 width^2)`: Gaussian, its `center` a trainable scalar."""

    def __init__(self, center: float = 0.0, width: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.tensor(center))
        self.width, self.shift = width, shift

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Energies `[B]`."""
        place = self.center.to(x.dtype) + self.shift * t.to(x.dtype).view(-1, 1, 1, 1)
        return (x - place).square().flatten(1).sum(1) / (2 * self.width**2)


class Cone(EnergyModel):
    """`f(x, t) = scale * sqrt(1 + |x - center|^2)`: its gradient's norm is nowhere above `scale`."""

    def __init__(self, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.tensor(center))
        self.scale = scale

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Energies `[B]`."""
        distance = (x - self.center.to(x.dtype)).square().flatten(1).sum(1)
        return self.scale * (1 + distance).sqrt()


class Slope(EnergyModel):
    """`f(x, t) = scale * sum(x) / sqrt(D)`: linear, its gradient has the norm `scale` everywhere."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Energies `[B]`."""
        return self.scale.to(x.dtype) * x.flatten(1).sum(1) / math.sqrt(x[0].numel())


class SmallNetwork(EnergyModel):
    """A smooth, time-conditioned convolutional network of a few thousand parameters, for any image size."""

    def __init__(self, image_shape: tuple[int, int, int], time_steps: int, scale: float = 1.0) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.scale = scale
        self.time = TimeEmbedding(time_steps, 8, 16)
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        self.block = ResidualBlock(8, 8, 16)
        halve = height % 2 == 0 and width % 2 == 0
        self.down = make_downsampling("subpixel", 8) if halve else nn.Identity()
        self.head = EnergyHead("flatten", 8, (height // 2, width // 2) if halve else (height, width), width=16)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Energies `[B]`."""
        energy: Tensor = self.head(self.down(self.block(self.stem(x), self.time(t))))
        return self.scale * energy


class _Once(torch.autograd.Function):
    """The identity, whose backward cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clone()


def make_once_differentiable(model: EnergyModel) -> EnergyModel:
    """The same network, of whose `forward` only first derivatives can be had from now on."""
    model.register_forward_pre_hook(lambda _, arguments: (_Once.apply(arguments[0]), *arguments[1:]))
    return model


def small_network(
    image_shape: tuple[int, int, int], time_steps: int, seed: int = 0, scale: float = 1.0
) -> SmallNetwork:
    """A `SmallNetwork` with the weights of this seed; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallNetwork(image_shape, time_steps, scale)


def photographs(count: int, shape: tuple[int, int, int], seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Smooth made-up images in [-1, 1], `[count, C, H, W]`: gradients and blobs, each different."""
    random = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    ys, xs = torch.linspace(-1, 1, height).view(-1, 1), torch.linspace(-1, 1, width)
    a, b, c = torch.randn(3, count, channels, 1, 1, generator=random)
    images: Tensor = (a * xs + b * ys + c * torch.exp(-2 * (xs.square() + ys.square()))).tanh()
    return images.to(dtype)


def gaussian(count: int, shape: tuple[int, int, int], seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """N(0, I) images, `[count, C, H, W]`."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def time_steps_of(count: int, last: int) -> Tensor:
    """`t[count]`, going through 1..last again and again."""
    return torch.arange(count) % last + 1
