"""Power laws over spatial frequencies, for noise and gradients that are not white.

The power of photographs falls about as `1 / |k|^2` with the spatial frequency k, that of N(0, I) does not fall at all.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["filtered", "power_law"]


def power_law(height: int, width: int, exponent: float, device: str | torch.device = "cpu") -> Tensor:
    """`p(k) ~ (|k|^2 + 1 / (H W))^-exponent` for the frequencies k of `torch.fft.rfft2`, `[H, W // 2 + 1]`, float32.

    k is in waves a pixel; the mean over all H * W frequencies is 1, so that N(0, I) filtered by `p.sqrt()` has variance
    1 at each pixel. `exponent` 0 is white, 1 falls as photographs do.
    """
    down = torch.fft.fftfreq(height, device=device, dtype=torch.float64).view(-1, 1)
    across = torch.fft.rfftfreq(width, device=device, dtype=torch.float64)
    power = (down.square() + across.square() + 1 / (height * width)) ** -exponent
    # Real images: all but the first column, and the last one of an even width, stand for two frequencies.
    twice = torch.full((width // 2 + 1,), 2.0, device=device, dtype=torch.float64)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    scaled: Tensor = power * (height * width) / (power * twice).sum()
    return scaled.float()


def filtered(x: Tensor, gains: Tensor) -> Tensor:
    """`x[B, C, H, W]` with each frequency multiplied by `gains[H, W // 2 + 1]`; a symmetric linear map."""
    found: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * gains, s=x.shape[-2:])
    return found
