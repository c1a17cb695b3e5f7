"""Parts that are not in the paper, for experiments."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import Buffer, Objective, Regularizer, Sampler, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_samplers() -> Sequence[type[Sampler]]:
    """The classes of this plugin."""
    from ebmkit_trials.normalized import NormalizedLangevin
    from ebmkit_trials.preconditioned import PreconditionedLangevin
    from ebmkit_trials.uneven import UnevenLangevin

    return [NormalizedLangevin, PreconditionedLangevin, UnevenLangevin]


@hookimpl
def ebmkit_regularizers() -> Sequence[type[Regularizer]]:
    """The classes of this plugin."""
    from ebmkit_trials.penalty import TrialLP

    return [TrialLP]


@hookimpl
def ebmkit_buffers() -> Sequence[type[Buffer]]:
    """The classes of this plugin."""
    from ebmkit_trials.buffer import TrialCyclic

    return [TrialCyclic]


@hookimpl
def ebmkit_objectives() -> Sequence[type[Objective]]:
    """The classes of this plugin."""
    from ebmkit_trials.objective import TrialWeighted

    return [TrialWeighted]
