"""The `resnet` energy: its options and checks, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ebmkit import BaseOptions, Context, Energy

if TYPE_CHECKING:
    from ebmkit import EnergyModel

Multiplier = Annotated[int, Field(ge=1, le=64)]


class ResNet(Energy):
    """The lighter backbone for 32x32 images ("Ours-small" in Table 1 of the paper), time-conditioned.

    A stem convolution; for each entry of `channel_multipliers` some residual blocks, half of the levels with a
    down-sampling after them; global pooling and a linear map. Time enters every block.
    """

    name = "resnet"

    class Options(BaseOptions):
        """Defaults: 6.08M parameters, whatever the image size."""

        channels: int = Field(default=128, ge=1, le=4096, description="Channels that the multipliers multiply.")
        channel_multipliers: tuple[Multiplier, ...] = Field(
            default=(1, 1, 1, 2, 2, 2),
            min_length=1,
            max_length=64,
            description="Channels of each level, in multiples of `channels`.",
        )
        downsample: tuple[bool, ...] | None = Field(
            default=None,
            description="For each level, whether its size is halved after its blocks. By default every other level "
            "from the first, never the last: 32, 16, 16, 8, 8, 4 pixels, as in IGEBM's ResNet.",
        )
        blocks_per_level: int = Field(default=1, ge=1, le=64, description="Residual blocks at every level.")
        downsampling: Literal["subpixel", "subpixel3", "strided"] = Field(
            default="subpixel",
            description="How to halve the size: sub-pixel pooling (space to depth) with a 1x1 convolution, the same "
            "with a 3x3, or a strided 3x3 convolution.",
        )
        conditioning: Literal["scale_shift", "add", "none"] = Field(
            default="scale_shift",
            description="Time scales and shifts the second norm of each block, is added to its features (DDPM), or "
            "does not enter.",
        )
        time_multiplier: int = Field(
            default=4, ge=1, le=64, description="Width of the time embedding in multiples of `channels`; DDPM has 4."
        )
        norm: Literal["layer", "group", "none"] = Field(
            default="layer",
            description="Layer norm over channels and pixels (the paper), group norm of 32 groups (DDPM), none.",
        )
        activation: Literal["silu", "sigmoid", "softplus", "gelu", "mish", "elu", "tanh", "leaky_relu", "relu"] = Field(
            default="silu", description="Activation function; smooth ones give Langevin dynamics smooth gradients."
        )
        head: Literal["flatten", "sum", "mean"] = Field(
            default="sum",
            description="From the last feature map to the energy: pool it by a sum or a mean into a linear map, or "
            "flatten it into a small network.",
        )
        head_width: int = Field(
            default=512, ge=0, le=65_536, description="Hidden width of the 'flatten' head; 0 has no hidden layer."
        )

        @model_validator(mode="after")
        def _one_flag_per_level(self) -> Self:
            levels = len(self.channel_multipliers)
            if self.downsample is not None and len(self.downsample) != levels:
                raise ValueError(f"downsample has {len(self.downsample)} entries for {levels} channel_multipliers")
            return self

        @property
        def halvings(self) -> tuple[bool, ...]:
            """For each level, whether its size is halved after its blocks."""
            if self.downsample is not None:
                return self.downsample
            levels = len(self.channel_multipliers)
            return tuple(level % 2 == 0 and level < levels - 1 for level in range(levels))

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """Image sizes that cannot be halved often enough."""
        halvings = sum(options.halvings)
        factor = 2**halvings
        return [
            f"image {side} {size} is not divisible by {factor}, which {halvings} down-samplings need: "
            f"use {_nearest(size, factor)}, or fewer true entries in downsample"
            for side, size in zip(("height", "width"), context.image_shape[1:], strict=True)
            if size % factor
        ]

    def build(self) -> EnergyModel:
        """A new `ResNetEnergy` for the context's image size and T."""
        from ebmkit_resnet.network import ResNetEnergy

        return ResNetEnergy(self.options, self.context.image_shape, self.context.time_steps)


def _nearest(size: int, factor: int) -> str:
    """The multiples of `factor` on both sides of `size`, for a message."""
    below = size // factor * factor
    return f"{below} or {below + factor}" if below else str(factor)
