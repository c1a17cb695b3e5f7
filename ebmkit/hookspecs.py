"""The hooks that a plugin may implement: one for each kind of component, and those of a run's life.

Mark an implementation with `@ebmkit.hookimpl`, at the top level of the module that the plugin's entry point names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from ebmkit.interfaces import Buffer, Energy, Objective, Regularizer, Sampler, Schedule
    from ebmkit.run_folder import RunInfo

PROJECT = "ebmkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ebmkit_energies() -> Sequence[type[Energy]]:  # type: ignore[empty-body]
    """The plugin's energy classes."""


@hookspec
def ebmkit_samplers() -> Sequence[type[Sampler]]:  # type: ignore[empty-body]
    """The plugin's sampler classes."""


@hookspec
def ebmkit_buffers() -> Sequence[type[Buffer]]:  # type: ignore[empty-body]
    """The plugin's buffer classes."""


@hookspec
def ebmkit_regularizers() -> Sequence[type[Regularizer]]:  # type: ignore[empty-body]
    """The plugin's regularizer classes."""


@hookspec
def ebmkit_schedules() -> Sequence[type[Schedule]]:  # type: ignore[empty-body]
    """The plugin's schedule classes."""


@hookspec
def ebmkit_objectives() -> Sequence[type[Objective]]:  # type: ignore[empty-body]
    """The plugin's objective classes."""


@hookspec
def ebmkit_train_begin(run: RunInfo) -> None:
    """Training starts or resumes; called once, on rank 0, before the first step."""


@hookspec
def ebmkit_step_end(run: RunInfo, step: int, metrics: Mapping[str, float]) -> None:
    """Metrics were read, every `train.log_every` steps; called on rank 0 after the parameters changed."""


@hookspec
def ebmkit_checkpoint(run: RunInfo, step: int, path: Path) -> None:
    """A checkpoint is complete under `path`; called on rank 0."""


@hookspec
def ebmkit_train_end(run: RunInfo, step: int) -> None:
    """Training reached its last step and the model file is written; called on rank 0."""


HOOK_OF_KIND: Mapping[str, str] = {
    "energy": "ebmkit_energies",
    "sampler": "ebmkit_samplers",
    "buffer": "ebmkit_buffers",
    "regularizer": "ebmkit_regularizers",
    "schedule": "ebmkit_schedules",
    "objective": "ebmkit_objectives",
}
"""The hook that returns each kind's classes."""
