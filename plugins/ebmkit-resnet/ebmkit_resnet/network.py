"""The network of the `resnet` energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ebmkit import EnergyModel
from ebmkit.layers import EnergyHead, ResidualBlock, TimeEmbedding, make_downsampling

if TYPE_CHECKING:
    from ebmkit_resnet.energy import ResNet


class ResNetEnergy(EnergyModel):
    """`f(x[B, C, H, W], t[B]) -> energy[B]`: IGEBM's ResNet (Du & Mordatch 2019) with the paper's blocks (section 5).

    With N halvings the last feature map is `[B, channels * multiplier, H / 2^N, W / 2^N]`.
    """

    def __init__(self, options: ResNet.Options, image_shape: tuple[int, int, int], time_steps: int) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        time_width = options.time_multiplier * options.channels
        channels = options.channels
        blind = options.conditioning == "none"
        self.time = None if blind else TimeEmbedding(time_steps, options.channels, time_width)
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1)

        self.body = nn.ModuleList()
        for multiplier, halve in zip(options.channel_multipliers, options.halvings, strict=True):
            for _ in range(options.blocks_per_level):
                out_channels = options.channels * multiplier
                self.body.append(
                    ResidualBlock(
                        channels,
                        out_channels,
                        time_width,
                        conditioning=options.conditioning,
                        norm=options.norm,
                        activation=options.activation,
                    )
                )
                channels = out_channels
            if halve:
                self.body.append(make_downsampling(options.downsampling, channels))

        halvings = sum(options.halvings)
        self.head = EnergyHead(
            options.head,
            channels,
            (height >> halvings, width >> halvings),
            width=options.head_width,
            norm=options.norm,
            activation=options.activation,
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Energies `[B]` of `x[B, C, H, W]` at `t[B]`."""
        embedding = None if self.time is None else self.time(t)
        h = self.stem(x)
        for layer in self.body:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
        energy: Tensor = self.head(h)
        return energy
