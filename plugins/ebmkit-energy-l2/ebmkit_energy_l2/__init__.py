"""The L2 penalty on energies of Du & Mordatch (2019)."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Regularizer, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_regularizers() -> Sequence[type[Regularizer]]:
    """The classes of this plugin."""
    from ebmkit_energy_l2.regularizer import EnergyL2

    return [EnergyL2]
