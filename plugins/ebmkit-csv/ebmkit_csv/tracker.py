"""The `csv` tracker."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebmkit import RunInfo, Tracker, hookimpl
from ebmkit_csv.table import Table

METRICS = "metrics.csv"
EVALUATIONS = "evaluations.csv"


class Csv(Tracker):
    """Writes `metrics.csv`, one row for each line of metrics.jsonl, and `evaluations.csv` into the run folder.

    A number that comes up later in a run gets a column of its own, empty in the earlier rows. A run that goes on from
    an earlier step loses the metrics of later steps, as they come again. Evaluations are kept: nobody repeats them.
    """

    name = "csv"
    metrics: Table

    @hookimpl
    def ebmkit_train_begin(self, run: RunInfo, step: int) -> None:
        """Go on with the metrics, without the rows of the steps that are about to come again."""
        self.metrics = Table(run.folder / METRICS, up_to=step)

    @hookimpl
    def ebmkit_step_end(self, metrics: Mapping[str, float]) -> None:
        """Append a row of metrics."""
        self.metrics.append(metrics)

    @hookimpl
    def ebmkit_checkpoint(self) -> None:
        """A run resumes from here even after a power cut, so the rows up to here must survive it, too."""
        self.metrics.sync()

    @hookimpl
    def ebmkit_evaluation(self, run: RunInfo, step: int, results: Mapping[str, Any]) -> None:
        """Append a row of results."""
        with _locked(run.folder):
            Table(run.folder / EVALUATIONS).append({"step": step, **results})


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Evaluations are processes of their own: several at once must not undo each other's rows."""
    # The folder itself is locked: a lock file could be cleared away while it is held.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
