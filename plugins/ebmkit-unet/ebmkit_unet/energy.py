"""The `unet` energy: its options and checks, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ebmkit import BaseOptions, Context, Energy

if TYPE_CHECKING:
    from ebmkit import EnergyModel

Multiplier = Annotated[int, Field(ge=1, le=64)]


class UNet(Energy):
    """The down-sampling half of DDPM's UNet (section 5 of the paper), without attention.

    A stem convolution; for each entry of `channel_multipliers` some residual blocks, with a down-sampling between one
    level and the next; some blocks more at the last level; a head. Time enters every block.
    """

    name = "unet"

    class Options(BaseOptions):
        """Defaults: 8.56M parameters at 32x32; with multipliers [1, 2, 3, 4] 44.81M at 64x64."""

        channels: int = Field(default=128, ge=1, le=4096, description="Channels that the multipliers multiply.")
        channel_multipliers: tuple[Multiplier, ...] = Field(
            default=(1, 2, 2, 1),
            min_length=1,
            max_length=12,
            description="Channels of each level, in multiples of `channels`; each has half the size of the one before.",
        )
        blocks_per_resolution: int = Field(default=2, ge=1, le=64, description="Residual blocks at every level.")
        middle_blocks: int = Field(default=2, ge=0, le=64, description="Further residual blocks after the last level.")
        downsampling: Literal["subpixel", "subpixel3", "strided"] = Field(
            default="subpixel",
            description="Between levels: sub-pixel pooling (space to depth) with a 1x1 convolution, the same with a "
            "3x3, or a strided 3x3 convolution as in DDPM.",
        )
        conditioning: Literal["scale_shift", "add", "none"] = Field(
            default="scale_shift",
            description="Time scales and shifts the second norm of each block, is added to its features (DDPM), or "
            "does not enter.",
        )
        time_multiplier: int = Field(
            default=1, ge=1, le=64, description="Width of the time embedding in multiples of `channels`; DDPM has 4."
        )
        norm: Literal["layer", "group", "none"] = Field(
            default="layer",
            description="Layer norm over channels and pixels (the paper), group norm of 32 groups (DDPM), none.",
        )
        activation: Literal["silu", "sigmoid", "softplus", "gelu", "mish", "elu", "tanh", "leaky_relu", "relu"] = Field(
            default="silu", description="Activation function; smooth ones give Langevin dynamics smooth gradients."
        )
        head: Literal["flatten", "sum", "mean"] = Field(
            default="flatten",
            description="From the last feature map to the energy: flatten it into a small network, or pool it by a sum "
            "or a mean into a linear map.",
        )
        head_width: int = Field(
            default=512, ge=0, le=65_536, description="Hidden width of the 'flatten' head; 0 has no hidden layer."
        )

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """Image sizes that cannot be halved often enough."""
        levels = len(options.channel_multipliers)
        factor = 2 ** (levels - 1)
        return [
            f"image {side} {size} is not divisible by {factor}, which {levels} levels need: "
            f"use {_nearest(size, factor)}, or fewer channel_multipliers"
            for side, size in zip(("height", "width"), context.image_shape[1:], strict=True)
            if size % factor
        ]

    def build(self) -> EnergyModel:
        """A new `UNetEncoder` for the context's image size and T."""
        from ebmkit_unet.network import UNetEncoder

        return UNetEncoder(self.options, self.context.image_shape, self.context.time_steps)


def _nearest(size: int, factor: int) -> str:
    """The multiples of `factor` on both sides of `size`, for a message."""
    below = size // factor * factor
    return f"{below} or {below + factor}" if below else str(factor)
