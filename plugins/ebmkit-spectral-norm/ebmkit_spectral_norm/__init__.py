"""Spectral normalization of every convolution and linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Regularizer, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_regularizers() -> Sequence[type[Regularizer]]:
    """The classes of this plugin."""
    from ebmkit_spectral_norm.regularizer import SpectralNorm

    return [SpectralNorm]
