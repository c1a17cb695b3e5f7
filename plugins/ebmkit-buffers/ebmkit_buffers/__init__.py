"""Replay buffers: the paper's cyclic one, PCD's persistent one, and none at all."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Buffer, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_buffers() -> Sequence[type[Buffer]]:
    """The classes of this plugin."""
    from ebmkit_buffers.cyclic import Cyclic
    from ebmkit_buffers.fresh import Fresh
    from ebmkit_buffers.persistent import Persistent

    return [Cyclic, Fresh, Persistent]
