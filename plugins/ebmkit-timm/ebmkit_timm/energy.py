"""The `timm` energy: its options, without torch or timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from ebmkit import BaseOptions, Energy

if TYPE_CHECKING:
    from ebmkit import EnergyModel

RESERVED = {
    "cache_dir": "nothing is downloaded",
    "checkpoint_path": "weights come from training or from a model file",
    "drop_path_rate": "an energy must not be random",
    "drop_rate": "an energy must not be random",
    "features_only": "the energy needs pooled features",
    "global_pool": "the backbone's own pooling is used",
    "img_size": "the recipe's image size is used",
    "in_chans": "the recipe's number of channels is used",
    "num_classes": "the energy has its own head",
    "pretrained": "weights come from training or from a model file",
    "pretrained_cfg": "weights come from training or from a model file",
    "pretrained_cfg_overlay": "weights come from training or from a model file",
    "scriptable": "the energy is differentiated twice",
    "exportable": "the energy is differentiated twice",
}
"""Arguments of `timm.create_model` that this plugin sets or rules out, and why."""


class Timm(Energy):
    """Any backbone of the timm library as a time-conditioned energy, with fresh weights.

    Time enters as extra input planes and by scaling and shifting the pooled features, which any backbone allows. Batch
    norm, dropout, fused attention and activations with kinks are replaced: an energy looks at one image at a time, is
    not random, and is differentiated twice.
    """

    name = "timm"

    class Options(BaseOptions):
        """Only `model` has no default."""

        model: str = Field(
            min_length=1,
            examples=["resnet18"],
            description="Architecture, as `timm.list_models()` has it: 'resnet18', ...",
        )
        arguments: dict[str, bool | int | float | str] = Field(
            default_factory=dict,
            description="Further arguments of the architecture, such as { patch_size = 4 } for a vision transformer.",
        )
        activation: Literal["silu", "softplus", "gelu", "mish", "original"] = Field(
            default="silu",
            description="Takes the place of ReLU and other activations with kinks; 'original' keeps those.",
        )
        norm: Literal["layer", "group", "none"] = Field(
            default="layer",
            description="Takes the place of batch norm: layer norm over channels and pixels, group norm with up to 32 "
            "groups, or nothing.",
        )
        time_channels: int = Field(default=128, ge=2, le=4096, description="Width of the time embedding.")
        time_planes: int = Field(
            default=4, ge=0, le=256, description="Constant planes that carry the time beside the image's own channels."
        )

        @field_validator("arguments")
        @classmethod
        def _not_reserved(cls, arguments: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
            for name in arguments:
                if name in RESERVED:
                    raise ValueError(f"{name!r} cannot be set: {RESERVED[name]}")
            return arguments

    def build(self) -> EnergyModel:
        """A new `TimmEnergy`; `BadInput` if timm has no such model or the image size does not suit it."""
        from ebmkit_timm.network import TimmEnergy

        return TimmEnergy(self.options, self.context.image_shape, self.context.time_steps)
