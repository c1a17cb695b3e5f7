"""The regularizer `r1`, a plugin for ebmkit."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Regularizer, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_regularizers() -> Sequence[type[Regularizer]]:
    """The classes of this plugin."""
    from ebmkit_r1.regularizer import R1

    return [R1]
