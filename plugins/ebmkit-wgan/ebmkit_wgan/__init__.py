"""The gradient penalties WGAN-LP (eq. 19) and WGAN-GP (eq. 18)."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Regularizer, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_regularizers() -> Sequence[type[Regularizer]]:
    """The classes of this plugin."""
    from ebmkit_wgan.regularizers import WganGP, WganLP

    return [WganGP, WganLP]
