"""The hooks that a plugin may implement: one for each kind of component, and those of a run's life.

Mark an implementation with `@ebmkit.hookimpl`: at the top level of the module that the plugin's entry point names, or,
for the lifecycle hooks, as a method of a `Tracker`. An implementation may leave out parameters that it does not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ebmkit.interfaces import Buffer, Energy, FeatureExtractor, Objective, Regularizer, Sampler, Schedule, Tracker
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
def ebmkit_trackers() -> Sequence[type[Tracker]]:  # type: ignore[empty-body]
    """The plugin's tracker classes."""


@hookspec
def ebmkit_feature_extractors() -> Sequence[type[FeatureExtractor]]:  # type: ignore[empty-body]
    """The plugin's feature extractor classes."""


@hookspec
def ebmkit_train_begin(run: RunInfo, step: int) -> None:
    """Training is about to start, or to go on from `step`; called on rank 0, once in a process and after each rollback.

    After a kill or a rollback `step` may be less than what was seen before: those steps are about to be done again.
    """


@hookspec
def ebmkit_step_end(run: RunInfo, step: int, metrics: Mapping[str, float]) -> None:
    """Metrics were read, every `train.log_every` steps and at the last one; called on rank 0.

    `metrics` are the numbers of this line of `metrics.jsonl`.
    """


@hookspec
def ebmkit_samples_drawn(run: RunInfo, step: int, images: Tensor, energies: Mapping[str, Tensor], path: Path) -> None:
    """A sample grid was written to `path`, every `train.sample_every` steps; called on rank 0.

    `images[N, C, H, W]` are the samples, around [-1, 1], on the CPU. `energies` are those of the averaged weights at
    t = 1, each `[M]` on the CPU: of `samples`, of `data` (images of the last batch), of `noise` (where samples began).
    """


@hookspec
def ebmkit_checkpoint(run: RunInfo, step: int, path: Path) -> None:
    """A checkpoint is complete in the folder `path`, and the model file written; called on rank 0."""


@hookspec
def ebmkit_evaluation(run: RunInfo, step: int, results: Mapping[str, Any]) -> None:
    """`ebmkit evaluate` measured the run's model, which was trained for `step` steps; called on rank 0.

    This happens in a process of its own, before, between or after those that train. `results` are the numbers that the
    command prints, `samples`, `images`, `seed` and, if there is one, the `extractor`'s name. Not called for a model
    file that lies in no run folder.
    """


@hookspec
def ebmkit_train_end(run: RunInfo, step: int, finished: bool) -> None:
    """Training ended after `step` and everything is written; called on rank 0.

    `finished` is False where it was asked to stop (Ctrl-C) before the recipe's last step.
    """


@hookspec
def ebmkit_exception(run: RunInfo, step: int, error: BaseException) -> None:
    """Training ends with this exception, after `step` whole steps, instead of `ebmkit_train_end`; called on rank 0.

    It may come before `ebmkit_train_begin`, where training did not get that far.
    """


HOOK_OF_KIND: Mapping[str, str] = {
    "energy": "ebmkit_energies",
    "sampler": "ebmkit_samplers",
    "buffer": "ebmkit_buffers",
    "regularizer": "ebmkit_regularizers",
    "schedule": "ebmkit_schedules",
    "objective": "ebmkit_objectives",
    "tracker": "ebmkit_trackers",
    "feature_extractor": "ebmkit_feature_extractors",
}
"""The hook that returns each kind's classes."""

HOOKS = tuple(name for name in globals() if name.startswith("ebmkit_"))
"""Every hook, in the order of this page."""

LIFECYCLE_HOOKS = tuple(name for name in HOOKS if name not in HOOK_OF_KIND.values())
"""The hooks of a run's life, in the order of a run."""
