"""Building blocks for authors of energy networks: time embedding, residual block, down-sampling, head.

Everything here can be differentiated twice, treats every sample by itself, and keeps the `channels_last` format.
Images are `[B, C, H, W]`, time steps `[B]` (int64, in {1..T}), time embeddings `[B, E]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = [
    "ACTIVATIONS",
    "CONDITIONINGS",
    "DOWNSAMPLINGS",
    "HEADS",
    "NORMS",
    "EnergyHead",
    "ResidualBlock",
    "TimeEmbedding",
    "make_activation",
    "make_downsampling",
    "make_norm",
]

_T = TypeVar("_T")

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,  # sigmoid(x) itself, as the paper's section 5 has it; not x * sigmoid(x)
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "leaky_relu": partial(nn.LeakyReLU, 0.2),
    "relu": nn.ReLU,
}
"""Activations by name. The last two have kinks: the energy's gradient then jumps, which Langevin steps follow."""

NORMS = ("layer", "group", "none")
"""Normalisations by name; none of them looks at the other images of the batch."""

CONDITIONINGS = ("scale_shift", "add", "none")
"""How a residual block takes the time embedding; "none" is blind to time, for comparison."""

DOWNSAMPLINGS = ("subpixel", "subpixel3", "strided")
"""Ways to halve the height and the width."""

HEADS = ("flatten", "sum", "mean")
"""Ways from the last feature map to one energy per image."""


def make_activation(name: str) -> nn.Module:
    """A new activation, elementwise and never in place; `name` is one of `ACTIVATIONS`."""
    return _choice("activation", name, ACTIVATIONS)()


def make_norm(name: str, channels: int) -> nn.Module:
    """A new normalisation of `[B, channels, H, W]`, each sample by itself; `name` is one of `NORMS`.

    "layer" normalises over (C, H, W) as in section 5 of the paper: group normalisation with one group. "group" has 32
    groups as in DDPM, or the most that divide both 32 and `channels`.
    """
    groups = {"layer": 1, "group": math.gcd(channels, 32), "none": 0}
    count = _choice("norm", name, groups)
    return nn.GroupNorm(count, channels) if count else nn.Identity()


class TimeEmbedding(nn.Module):
    """`t[B]` -> `[B, width]`: sines and cosines, then linear, SiLU, linear (DDPM, Ho et al. 2020; section 5).

    `t` is scaled by 1000 / T, so that the embedding spans DDPM's range whatever T is.
    """

    table: Tensor

    def __init__(self, time_steps: int, channels: int, width: int) -> None:
        super().__init__()
        # One row per time step: a look-up is exact in every precision, sin(1000) in bfloat16 would not be.
        self.register_buffer("table", sinusoids(time_steps, channels), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """`t[B]` in {1..T} -> `[B, width]`."""
        embedding: Tensor = self.mlp(self.table[t])
        return embedding


def sinusoids(time_steps: int, channels: int) -> Tensor:
    """The sinusoidal encodings of t = 0..T, `[T + 1, channels]` (section 3.5 of Vaswani et al. 2017)."""
    half = (channels + 1) // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half) / max(half - 1, 1))
    angles = torch.arange(time_steps + 1)[:, None] * (1000 / time_steps) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :channels]


def make_downsampling(name: str, channels: int) -> nn.Module:
    """A layer `[B, channels, H, W]` -> `[B, channels, H/2, W/2]`, for even H and W; `name` is one of `DOWNSAMPLINGS`.

    "subpixel" moves each 2x2 square into the channels and mixes these with a 1x1 convolution, "subpixel3" with a 3x3:
    the paper's sub-pixel pooling (section 5), which treats all pixels alike. "strided" is DDPM's 3x3 convolution.
    """
    kernel = _choice("downsampling", name, {"subpixel": 1, "subpixel3": 3, "strided": 0})
    if kernel == 0:
        return nn.Conv2d(channels, channels, 3, stride=2, padding=1)
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, channels, kernel, padding=kernel // 2))


class ResidualBlock(nn.Module):
    """`x[B, in, H, W]`, `embedding[B, time_width]` -> `[B, out, H, W]`: DDPM's block without dropout.

    norm, activation, conv, time, norm, activation, conv; plus the input, through a 1x1 convolution where `in != out`.
    Time is added as one value per channel ("add", DDPM), or scales and shifts the second norm's output
    ("scale_shift", Dhariwal & Nichol 2021), or does not enter ("none"; `embedding` is None then). `norm` and
    `activation` are names from `NORMS` and `ACTIVATIONS`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_width: int,
        *,
        conditioning: str = "scale_shift",
        norm: str = "layer",
        activation: str = "silu",
    ) -> None:
        super().__init__()
        planes = _choice("conditioning", conditioning, {"scale_shift": 2, "add": 1, "none": 0})
        self.conditioning = conditioning
        self.norm1 = make_norm(norm, in_channels)
        self.act1 = make_activation(activation)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if planes:
            self.time = nn.Sequential(nn.SiLU(), nn.Linear(time_width, planes * out_channels))
        self.norm2 = make_norm(norm, out_channels)
        self.act2 = make_activation(activation)
        # DDPM starts this convolution at zero. Then no block would depend on t at first: it has torch's default here.
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """`x[B, in, H, W]`, `embedding[B, time_width]` -> `[B, out, H, W]`."""
        h: Tensor = self.conv1(self.act1(self.norm1(x)))
        if self.conditioning == "none":
            h = self.norm2(h)
        else:
            time: Tensor = self.time(embedding)[:, :, None, None]
            if self.conditioning == "scale_shift":
                scale, shift = time.chunk(2, dim=1)
                h = self.norm2(h) * (1 + scale) + shift
            else:
                h = self.norm2(h + time)
        h = self.conv2(self.act2(h))
        skip: Tensor = self.skip(x)
        return skip + h


class EnergyHead(nn.Module):
    """`[B, channels, H, W]` -> energies `[B]`: norm, activation, then `kind`, one of `HEADS`.

    "sum" and "mean" pool over all pixels and map linearly to one scalar. "flatten" keeps the places: linear to
    `width`, activation, linear to one scalar (`width=0`: straight to the scalar); it fits one image size only.
    """

    def __init__(
        self,
        kind: str,
        channels: int,
        size: tuple[int, int],
        *,
        width: int = 512,
        norm: str = "layer",
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.kind = _choice("head", kind, {name: name for name in HEADS})
        self.norm = make_norm(norm, channels)
        self.act = make_activation(activation)
        features = channels * math.prod(size) if kind == "flatten" else channels
        self.hidden: nn.Module = nn.Identity()
        if kind == "flatten" and width > 0:
            self.hidden = nn.Sequential(nn.Linear(features, width), make_activation(activation))
            features = width
        self.out = nn.Linear(features, 1)
        if kind == "sum":
            # Start as "mean" does, with input gradients of norm 0.1 to 0.3; else they grow with the number of pixels.
            bound = 1 / (math.sqrt(features) * math.prod(size))
            nn.init.uniform_(self.out.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """`x[B, channels, H, W]` -> `[B]`, in the precision of the weights even under autocast."""
        h: Tensor = self.act(self.norm(x))
        h = h.flatten(2 if self.kind != "flatten" else 1)
        if self.kind != "flatten":
            h = h.sum(2) if self.kind == "sum" else h.mean(2)
        energy: Tensor = self.out(self.hidden(h)).squeeze(1)
        return energy.to(self.out.weight.dtype)


def _choice(what: str, name: str, table: Mapping[str, _T]) -> _T:
    """`table[name]`, or an error that lists the names."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; choose one of {', '.join(table)}")
    return table[name]
