"""Any timm backbone as a time-conditioned energy."""

from __future__ import annotations

from ebmkit import Energy, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_energies() -> list[type[Energy]]:
    """The energies of this plugin."""
    from ebmkit_timm.energy import Timm

    return [Timm]
