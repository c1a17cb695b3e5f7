"""The sampler `underdamped`, a plugin for ebmkit."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Sampler, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_samplers() -> Sequence[type[Sampler]]:
    """The classes of this plugin."""
    from ebmkit_underdamped.sampler import Underdamped

    return [Underdamped]
