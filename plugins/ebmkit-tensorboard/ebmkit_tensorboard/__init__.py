"""A run in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Tracker, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_trackers() -> Sequence[type[Tracker]]:
    """The classes of this plugin."""
    from ebmkit_tensorboard.tracker import TensorBoard

    return [TensorBoard]
