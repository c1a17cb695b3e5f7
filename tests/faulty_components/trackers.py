"""Faults of trackers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch

from ebmkit import (
    Tracker,
    hookimpl,
)
from faulty_components.common import breaks


class GoodTracker(Tracker):
    """Appends a line for each step."""

    name = "good"
    file = "good.txt"

    @hookimpl
    def ebmkit_step_end(self, run: Any, step: int, metrics: Mapping[str, float]) -> None:
        with (run.folder / self.file).open("a") as file:
            file.write(f"{step} {metrics['loss']}\n")


@breaks("lives through a run", "ebmkit_step_end raises KeyError: 'energy_data'")
class CountsOnAMetric(GoodTracker):
    """Reads a metric that is not always there."""

    @hookimpl
    def ebmkit_step_end(self, metrics: Mapping[str, float]) -> None:
        metrics["energy_data"]


@breaks("lives through a run", "which belongs to ebmkit, was changed")
class WritesOurFile(GoodTracker):
    """Appends to metrics.jsonl."""

    file = "metrics.jsonl"


@breaks("lives through a run", "was written outside of the run folder")
class WritesElsewhere(GoodTracker):
    """Writes into the working directory."""

    file = "../../stray.txt"


@breaks("goes on after a kill", "going on with a run deletes good.txt")
class DeletesOnResume(GoodTracker):
    """Begins anew whenever training begins."""

    @hookimpl
    def ebmkit_train_begin(self, run: Any) -> None:
        (run.folder / self.file).unlink(missing_ok=True)


@breaks("hears of evaluations", "ebmkit_evaluation raises AttributeError")
class NeedsABegin(GoodTracker):
    """Opens its file in train_begin only."""

    @hookimpl
    def ebmkit_train_begin(self, run: Any) -> None:
        self.path = run.folder / self.file

    @hookimpl
    def ebmkit_evaluation(self, results: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(str(results))


@breaks("lives through a run", "changes the gradient mode of the process and leaves it changed")
class LeavesGradientsOff(GoodTracker):
    """Switches gradients off for good."""

    @hookimpl
    def ebmkit_step_end(self) -> None:
        torch.set_grad_enabled(False)


@breaks("lives through a run", "changes autocast of the process")
class LeavesAutocastOn(GoodTracker):
    """Enters autocast and never leaves it."""

    @hookimpl
    def ebmkit_samples_drawn(self) -> None:
        torch.autocast("cpu", torch.bfloat16).__enter__()


@breaks("uses no global random state", "draws from Python's global random state")
class NamesByChance(GoodTracker):
    """Draws a name for each step."""

    @hookimpl
    def ebmkit_step_end(self, run: Any, step: int) -> None:
        (run.folder / f"{step}-{random.randrange(10**6)}.txt").touch()
