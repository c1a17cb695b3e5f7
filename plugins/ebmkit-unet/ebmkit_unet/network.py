"""The network of the `unet` energy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ebmkit import EnergyModel
from ebmkit.layers import EnergyHead, ResidualBlock, TimeEmbedding, make_downsampling

if TYPE_CHECKING:
    from ebmkit_unet.energy import UNet


class UNetEncoder(EnergyModel):
    """`f(x[B, C, H, W], t[B]) -> energy[B]`: the down-sampling half of DDPM's UNet (Ho et al. 2020; section 5).

    With L levels the last feature map is `[B, channels * multiplier, H / 2^(L-1), W / 2^(L-1)]`.
    """

    def __init__(self, options: UNet.Options, image_shape: tuple[int, int, int], time_steps: int) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        time_width = options.time_multiplier * options.channels
        channels = options.channels
        blind = options.conditioning == "none"
        self.time = None if blind else TimeEmbedding(time_steps, options.channels, time_width)
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1)

        self.body = nn.ModuleList()
        last = len(options.channel_multipliers) - 1
        for level, multiplier in enumerate(options.channel_multipliers):
            blocks = options.blocks_per_resolution + (options.middle_blocks if level == last else 0)
            for _ in range(blocks):
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
            if level < last:
                self.body.append(make_downsampling(options.downsampling, channels))

        self.head = EnergyHead(
            options.head,
            channels,
            (height >> last, width >> last),
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
