"""timm models made fit to be energies: one image at a time, not random, smooth, twice differentiable."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import timm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ebmkit.errors import BadInput
from ebmkit.layers import make_activation, make_norm

if TYPE_CHECKING:
    from ebmkit_timm.energy import Timm

# By class name, as timm has several classes of one name, of which not all are public.
KINKED = frozenset(
    {"ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "SELU", "Hardtanh"}
    | {"Hardswish", "HardSwish", "HardSwishMe", "HardMish", "HardMishMe"}
)
HARD_GATES = frozenset({"Hardsigmoid", "HardSigmoid", "HardSigmoidMe"})


def create_backbone(options: Timm.Options, in_channels: int, size: tuple[int, int]) -> nn.Module:
    """A new `[B, in_channels, H, W] -> [B, F]` with timm's initial weights; `BadInput` if timm cannot make it."""
    model = options.model
    if model not in timm.list_models():
        raise BadInput(f"unknown timm model {model!r}" + _nearest(model))
    try:
        backbone = _create(options, in_channels, size)
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(f"timm cannot make {model!r} for images of {size[0]} x {size[1]} pixels: {error}") from error
    replace(backbone, lambda module: _fit(module, options))
    for module in backbone.modules():
        _settle(module)
    if any(name.endswith("running_var") for name, _ in backbone.named_buffers()):
        raise BadInput(f"timm model {model!r} uses batch statistics that cannot be replaced: choose another")
    return backbone


def replace(module: nn.Module, new: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put `new(child)` in the place of every descendant for which it is not None, in place."""
    for name, child in module.named_children():
        other = new(child)
        if other is not None:
            setattr(module, name, other)
        else:
            replace(child, new)


def _create(options: Timm.Options, in_channels: int, size: tuple[int, int]) -> nn.Module:
    """The model as timm has it; it is told the image size if it can be told."""
    arguments: dict[str, Any] = {"pretrained": False, "in_chans": in_channels, "num_classes": 0, **options.arguments}
    try:
        return timm.create_model(options.model, img_size=size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return timm.create_model(options.model, **arguments)


def _fit(module: nn.Module, options: Timm.Options) -> nn.Module | None:
    """What an energy has in the place of `module`, None for the same."""
    kind = type(module).__name__
    if isinstance(module, _BatchNorm):
        norm = make_norm(options.norm, module.num_features)
        act = getattr(module, "act", None)  # timm has batch norm and activation in one module, too
        if act is None:
            return norm
        return nn.Sequential(norm, _fit(act, options) or act)
    if isinstance(module, _DropoutNd) or kind in {"DropPath", "DropBlock2d"}:
        return nn.Identity()
    if options.activation != "original":
        if kind in KINKED:
            return make_activation(options.activation)
        if kind in HARD_GATES:
            return nn.Sigmoid()
    return None


def _settle(module: nn.Module) -> None:
    """Switch off what timm modules do by attributes: fused attention (no second derivative), in-place, dropout."""
    for name, off in (("fused_attn", False), ("inplace", False), ("drop_rate", 0.0)):
        if isinstance(getattr(module, name, None), bool | float):
            setattr(module, name, off)


def _nearest(model: str) -> str:
    """The nearest names that timm has, as the end of a sentence."""
    bare = model.split("/")[-1].split(".")[0]  # without the source and the tag of pretrained weights
    names = difflib.get_close_matches(bare, timm.list_models(), n=3)
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else "; see timm.list_models()"
