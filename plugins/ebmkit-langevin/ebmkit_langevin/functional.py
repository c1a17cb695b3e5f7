"""One Langevin step as a pure function."""

from __future__ import annotations

import torch
from torch import Tensor


def clip_norm(gradient: Tensor, limit: float) -> Tensor:
    """Scale each sample's gradient so that its norm over C, H, W is at most `limit`."""
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=tuple(range(1, gradient.ndim)), keepdim=True)
    return gradient * (limit / norm.clamp_min(limit))


def langevin_step(x: Tensor, gradient: Tensor, step_size: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """`x - eta/2 * grad_x f(x, t) + sigma * N(0, I)` (eq. 9; step and noise apart, as in Table 7).

    `step_size` (eta) and `sigma` are `[B]`, one value per sample.
    """
    shape = (-1,) + (1,) * (x.ndim - 1)
    return x - (step_size / 2).view(shape) * gradient + sigma.view(shape) * noise
