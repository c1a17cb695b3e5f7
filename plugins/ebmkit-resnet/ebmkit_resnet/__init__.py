"""The light residual-network energy for 32x32 images."""

from __future__ import annotations

from ebmkit import Energy, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_energies() -> list[type[Energy]]:
    """The energies of this plugin."""
    from ebmkit_resnet.energy import ResNet

    return [ResNet]
