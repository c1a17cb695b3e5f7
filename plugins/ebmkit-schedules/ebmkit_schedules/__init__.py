"""Schedules: constant, linear, cosine, cosine with restarts, geometric."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Schedule, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_schedules() -> Sequence[type[Schedule]]:
    """The classes of this plugin."""
    from ebmkit_schedules.schedules import Constant, Cosine, CosineRestarts, Geometric, Linear

    return [Constant, Cosine, CosineRestarts, Geometric, Linear]
