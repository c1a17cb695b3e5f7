"""Gradient penalties as pure functions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ebmkit import EnergyFunction, energy_gradient

Norm = Literal["sample", "pixel"]


def interpolate(x_pos: Tensor, x_neg: Tensor, a: Tensor) -> Tensor:
    """`xhat = a * x_neg + (1 - a) * x_pos` (eq. 18), with one `a[B]` per sample; `[B, C, H, W]`, detached."""
    a = a.view(-1, *(1,) * (x_pos.ndim - 1))
    return (a * x_neg + (1 - a) * x_pos).detach()


def gradient_norm(energy: EnergyFunction, xhat: Tensor, t: Tensor, norm: Norm) -> Tensor:
    """`||grad_xhat f(xhat, t)||_2`, differentiable by the parameters: `[B]` per sample or `[B, H, W]` per pixel.

    "sample" takes the norm over C, H and W, as eq. 18 and 19 mean it; "pixel" over the channels of each pixel only.
    """
    gradient = energy_gradient(energy, xhat, t, create_graph=True)
    if not gradient.requires_grad:
        # Compiled code has been known to drop this silently, and the penalty would then train nothing.
        raise RuntimeError(
            "the energy's input gradient depends on nothing that can be trained, so the gradient penalty would do "
            "nothing: it needs trainable parameters and an energy that can be differentiated twice (double backward)"
        )
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=(1, 2, 3) if norm == "sample" else 1)
    return norms


def one_sided(norm: Tensor) -> Tensor:
    """`mean relu(norm - 1)^2`: WGAN-LP (Petzka et al. 2017; eq. 19)."""
    return (norm - 1).relu().square().mean()


def two_sided(norm: Tensor) -> Tensor:
    """`mean (norm - 1)^2`: WGAN-GP (Gulrajani et al. 2017; eq. 18)."""
    return (norm - 1).square().mean()
