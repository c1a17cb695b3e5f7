"""The network of the `timm` energy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ebmkit import EnergyModel
from ebmkit.errors import BadInput
from ebmkit.layers import TimeEmbedding
from ebmkit_timm.backbone import create_backbone

if TYPE_CHECKING:
    from ebmkit_timm.energy import Timm


class TimmEnergy(EnergyModel):
    """`f(x[B, C, H, W], t[B]) -> energy[B]`: backbone on image and time planes, FiLM by time, linear.

    FiLM (Perez et al. 2018) scales and shifts each of the F pooled features.
    """

    def __init__(self, options: Timm.Options, image_shape: tuple[int, int, int], time_steps: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        in_channels = channels + options.time_planes
        self.time = TimeEmbedding(time_steps, options.time_channels, options.time_channels)
        self.planes = nn.Linear(options.time_channels, options.time_planes) if options.time_planes else None
        self.backbone = create_backbone(options, in_channels, (height, width))
        features = _features(self.backbone, options.model, (in_channels, height, width))
        self.norm = nn.LayerNorm(features)
        self.film = nn.Linear(options.time_channels, 2 * features)
        self.act = nn.SiLU()
        self.out = nn.Linear(features, 1)
        # Backbones made for classifying can react strongly: start with input gradients of norm below 0.5 or so.
        bound = 0.2 / math.sqrt(features)
        nn.init.uniform_(self.out.weight, -bound, bound)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Energies `[B]` of `x[B, C, H, W]` at `t[B]`."""
        embedding = self.time(t)
        if self.planes is not None:
            planes = self.planes(embedding)[:, :, None, None].expand(-1, -1, *x.shape[2:])
            x = torch.cat([x, planes.to(x.dtype)], dim=1)
        scale, shift = self.film(embedding).chunk(2, dim=1)
        h = self.norm(self.backbone(x)) * (1 + scale) + shift
        energy: Tensor = self.out(self.act(h)).squeeze(1)
        return energy.to(self.out.weight.dtype)


def _features(backbone: nn.Module, model: str, shape: tuple[int, int, int]) -> int:
    """F of the pooled features `[B, F]`, from a trial on one image; `BadInput` if `shape` does not suit."""
    channels, height, width = shape
    weight = next(backbone.parameters())
    image = torch.linspace(-1, 1, channels * height * width, dtype=weight.dtype, device=weight.device).cos()
    image = image.reshape(1, *shape).requires_grad_()
    training = backbone.training
    try:
        with torch.enable_grad():
            pooled = backbone.eval()(image)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(f"timm model {model!r} cannot take images of {height} x {width} pixels: {error}") from error
    backbone.train(training)
    if not isinstance(pooled, Tensor) or pooled.ndim != 2:
        raise BadInput(f"timm model {model!r} gives no pooled features and cannot be an energy")

    # Patches and strides may leave out the last rows and columns without a word; these pixels would stay noise.
    weights = torch.linspace(-1, 1, pooled.shape[1], dtype=weight.dtype, device=weight.device)
    (gradient,) = torch.autograd.grad(pooled, image, weights.expand_as(pooled))
    seen = gradient.abs().sum((0, 1))
    if not seen.is_meta and not (seen.sum(0).all() and seen.sum(1).all()):
        rows, columns = int(seen.sum(1).count_nonzero()), int(seen.sum(0).count_nonzero())
        raise BadInput(
            f"timm model {model!r} looks at {rows} x {columns} of {height} x {width} pixels only: choose an image size "
            "that its patches or strides divide"
        )
    return int(pooled.shape[1])
