"""Langevin dynamics (eq. 9), with separate step size and noise."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Sampler, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_samplers() -> Sequence[type[Sampler]]:
    """The classes of this plugin."""
    from ebmkit_langevin.sampler import Langevin

    return [Langevin]
