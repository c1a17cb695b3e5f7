"""Energies whose gradients are zero at first, or whose weights are not what they seem."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ebmkit import Energy, EnergyModel


class Convolutions(EnergyModel):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.time = nn.Linear(4, 8)
        self.head = nn.Linear(8, 1)

    def embed(self, t: Tensor, x: Tensor) -> Tensor:
        waves: Tensor = torch.sin(t[:, None].to(x.dtype) * torch.arange(1, 5, device=x.device, dtype=x.dtype))
        return waves

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = nn.functional.silu(self.conv(x) + self.time(self.embed(t, x))[:, :, None, None])
        energy: Tensor = self.head(h.mean((2, 3))).squeeze(1)
        return energy


class StartsFlat(Energy):
    """Its output layer begins at zero, so that every energy and every gradient by the image is zero at first."""

    name = "starts_flat"

    def build(self) -> EnergyModel:
        model = Convolutions(self.context.image_shape[0])
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
        return model


class GatedConvolutions(Convolutions):
    """A residual branch with a gate that begins at zero, before an output layer that does, too."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.branch = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x + self.gate * self.branch(x).tanh(), t)


class GatesAtZero(Energy):
    """ReZero: two layers in a row begin at zero."""

    name = "gates_at_zero"

    def build(self) -> EnergyModel:
        return GatedConvolutions(self.context.image_shape[0])


class NormalizesSpectra(Energy):
    """Spectral norm inside: power iterations change buffers in training mode."""

    name = "normalizes_spectra"

    def build(self) -> EnergyModel:
        model = Convolutions(self.context.image_shape[0])
        spectral_norm(model.conv)
        spectral_norm(model.head)
        return model


class DroppingConvolutions(Convolutions):
    def embed(self, t: Tensor, x: Tensor) -> Tensor:
        # Made in float32, and converted where it is used; dropout in training mode is torch's own.
        waves = torch.sin(t[:, None] * torch.arange(1.0, 5.0, device=x.device))
        return nn.functional.dropout(waves.to(x.dtype), 0.2, self.training)


class CastsItsTime(Energy):
    """Makes its time embedding in float32 and converts it, and drops parts of it out in training."""

    name = "casts_its_time"

    def build(self) -> EnergyModel:
        return DroppingConvolutions(self.context.image_shape[0])
