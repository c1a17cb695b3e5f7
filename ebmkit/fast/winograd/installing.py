"""Giving a network's convolutions the faster computation."""

from __future__ import annotations

from torch import nn

from ebmkit.fast.winograd.convolution import convolve
from ebmkit.fast.winograd.kernels import library, panel_for

FEWEST_CHANNELS = 16
"""With fewer, the transforms take as long as what they save."""


def install(model: nn.Module) -> int:
    """Let the 3x3 convolutions of `model` be computed by `convolve`; returns how many. Raises `NoKernels`.

    Names, weights and classes of the modules stay as they are, so that nothing else can tell the difference.
    """
    found = [module for module in model.modules() if isinstance(module, nn.Conv2d) and _suits(module)]
    for panel in {panel_for(module.in_channels, module.out_channels) for module in found}:
        assert panel is not None
        library(panel)
    for module in found:
        module._conv_forward = convolve  # type: ignore[method-assign, assignment]
    return len(found)


def _suits(module: nn.Conv2d) -> bool:
    channels = module.in_channels, module.out_channels
    return (
        module.kernel_size == (3, 3)
        and module.stride == module.padding == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and min(channels) >= FEWEST_CHANNELS
        and panel_for(*channels) is not None
        # Some libraries have convolutions of their own, which do something else first.
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
    )
