"""Which directions of an image are wide and which are narrow: a preconditioner for noise, steps and gradients.

The power of photographs falls about as `1 / |k|^2` or faster with the spatial frequency k, and nine tenths of it is
brightness, not colour. That of N(0, I) is the same for all.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Preconditioner", "power_law"]


def power_law(height: int, width: int, exponent: float, device: str | torch.device = "cpu") -> Tensor:
    """`p(k) ~ (|k|^2 + 1 / (H W))^-exponent` for the frequencies k of `torch.fft.rfft2`, `[H, W // 2 + 1]`, float32.

    k is in waves a pixel; the mean over all H * W frequencies is 1, so that N(0, I) filtered by `p.sqrt()` has variance
    1 at each pixel. `exponent` 0 is white, 1 falls about as photographs do.
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


class Preconditioner:
    """The symmetric linear map P of images `[B, C, H, W]`, with a mean eigenvalue of 1.

    It multiplies each spatial frequency by `power_law` of exponent `spectrum`, and differences between channels by
    `chroma` times what it multiplies their mean by. `spectrum` 0 and `chroma` 1 make it the identity.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], spectrum: float, chroma: float, device: str | torch.device = "cpu"
    ) -> None:
        channels, height, width = image_shape
        self.power = power_law(height, width, spectrum, device)
        self.root_power = self.power.sqrt()
        self.white = spectrum == 0
        self.mean_gain = channels / (1 + (channels - 1) * chroma)
        """What the mean over channels is multiplied by; differences from it by `chroma` times that."""
        self.difference_gain = chroma * self.mean_gain

    def apply(self, x: Tensor) -> Tensor:
        """`P x`."""
        return self._scaled(x, self.power, self.mean_gain, self.difference_gain)

    def root(self, x: Tensor) -> Tensor:
        """`P^(1/2) x`: N(0, I) becomes N(0, P)."""
        return self._scaled(x, self.root_power, self.mean_gain**0.5, self.difference_gain**0.5)

    def _scaled(self, x: Tensor, gains: Tensor, mean_gain: float, difference_gain: float) -> Tensor:
        if mean_gain != difference_gain:
            x = difference_gain * x + (mean_gain - difference_gain) * x.mean(1, keepdim=True)
        elif mean_gain != 1:
            x = mean_gain * x
        if self.white:
            return x
        filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * gains, s=x.shape[-2:])
        return filtered
