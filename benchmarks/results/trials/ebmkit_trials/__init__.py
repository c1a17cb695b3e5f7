"""Parts that are not in the paper and have not won."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Regularizer, Sampler, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_samplers() -> Sequence[type[Sampler]]:
    """The classes of this plugin."""
    from ebmkit_trials.normalized import NormalizedLangevin
    from ebmkit_trials.preconditioned import PreconditionedLangevin

    return [NormalizedLangevin, PreconditionedLangevin]


@hookimpl
def ebmkit_regularizers() -> Sequence[type[Regularizer]]:
    """The classes of this plugin."""
    from ebmkit_trials.penalty import TrialLP

    return [TrialLP]
