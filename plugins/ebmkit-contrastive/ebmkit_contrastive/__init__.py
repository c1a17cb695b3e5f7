"""The contrastive divergence objective (eq. 16)."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Objective, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_objectives() -> Sequence[type[Objective]]:
    """The classes of this plugin."""
    from ebmkit_contrastive.objective import ContrastiveDivergence

    return [ContrastiveDivergence]
