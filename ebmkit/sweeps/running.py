"""Running a sweep: several runs at once, each by the ebmkit command itself, finished ones kept."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ebmkit.errors import BadInput
from ebmkit.files import write_text
from ebmkit.running import require_data
from ebmkit.stopping import listening
from ebmkit.sweeps.evaluating import evaluate_words
from ebmkit.sweeps.file import load_sweep
from ebmkit.sweeps.folder import SweepFolder
from ebmkit.sweeps.jobs import Job
from ebmkit.sweeps.plan import plan
from ebmkit.sweeps.table import Row, csv_text, markdown, row_of

POLL = 0.2
"""Seconds between looks at the processes."""


class SweepView(Protocol):
    """Who watches a sweep."""

    def say(self, message: str) -> None:
        """Something that a person should know."""

    def begin(self, done: int, total: int) -> None:
        """So many of the runs are finished already."""

    def started(self, name: str, steps: int) -> None:
        """A run begins or goes on."""

    def stepped(self, name: str, doing: str, step: int) -> None:
        """A run is at this step."""

    def ended(self, row: Row) -> None:
        """A run is finished, failed or stopped."""


class Unwatched:
    """Watches nothing; messages go to `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def begin(self, done: int, total: int) -> None:
        """Ignored."""

    def started(self, name: str, steps: int) -> None:
        """Ignored."""

    def stepped(self, name: str, doing: str, step: int) -> None:
        """Ignored."""

    def ended(self, row: Row) -> None:
        """Ignored."""


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended: a row for each run, and whether it was stopped by request, with which exit code then."""

    folder: Path
    rows: tuple[Row, ...]
    stopped: bool
    exit_code: int = 0

    @property
    def failed(self) -> bool:
        """Whether some run failed."""
        return any(row.state == "failed" for row in self.rows)


def run_sweep(
    source: str | Path,
    out_dir: str | Path | None,
    jobs: int,
    threads: int,
    view: SweepView,
    overrides: Mapping[str, Any] | None = None,
) -> SweepOutcome:
    """Train and evaluate every run of a sweep that is not finished; raises `EbmkitError`s before the first begins.

    Writes table.csv and table.md into the sweep's folder, whenever a run has ended.
    """
    sweep = load_sweep(source, overrides)
    runs = plan(sweep, view.say)
    words = evaluate_words(sweep)
    folder = SweepFolder(Path(out_dir) if out_dir else Path("runs") / sweep.name)
    left = folder.refuse_others(sweep, runs)
    for recipe in {run.recipe.data.patterns: run.recipe for run in runs}.values():
        require_data(recipe)
    folder.prepare(sweep, runs)
    with folder.locked():
        if left:
            view.say(f"note: {folder.folder} has runs that are not in {source} any more: {', '.join(left)}")
        todo = [Job(folder, run, dict(sweep.evaluate), words, threads) for run in runs]

        def rows() -> tuple[Row, ...]:
            return tuple(row_of(folder, run) for run in runs)

        def ended(job: Job) -> None:
            view.ended(row_of(folder, job.run))
            _write_tables(folder, rows())

        # The first seed of every point before the second of any: half a sweep has something to say about all points.
        seeds = list(dict.fromkeys(run.seed for run in runs))
        waiting = sorted((job for job in todo if not job.finished()), key=lambda job: seeds.index(job.run.seed))
        view.begin(len(runs) - len(waiting), len(runs))
        with listening() as stop, stop.after_step(_only_first(view.say)):
            _work(waiting, jobs, stop, view, ended)
        _write_tables(folder, rows())
        return SweepOutcome(folder.folder, rows(), stop(), stop.exit_code)


def _work(
    waiting: list[Job], jobs: int, stop: Callable[[], bool], view: SweepView, ended: Callable[[Job], None]
) -> None:
    active: list[Job] = []
    told = waited = False
    try:
        while active or (waiting and not told):
            if stop() and not told:
                told = True
                for job in active:
                    job.stop()
            while not told and len(active) < jobs and (free := next((job for job in waiting if job.free()), None)):
                waiting.remove(free)
                free.begin()
                active.append(free)
                view.started(free.name, free.run.recipe.train.steps)
            if waiting and not (active or told or waited):
                # A killed sweep's run may need a moment for its checkpoint; somebody's own training may need days.
                waited = True
                view.say(f"waiting: another process trains in {', '.join(job.name for job in waiting)}")
            for job in list(active):
                if job.advance():
                    active.remove(job)
                    ended(job)
                else:
                    view.stepped(job.name, job.doing, _step(job))
            time.sleep(POLL)
    finally:
        # Nothing is left behind, whatever ended this: a second Ctrl-C, or a full disk.
        for job in active:
            job.stop(signal.SIGKILL)


def _step(job: Job) -> int:
    path = job.folder.run(job.name).metrics
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        # The last complete line; each begins {"step": 10, ...
        lines = [line for line in file.read().split(b"\n")[:-1] if line.startswith(b'{"step": ')]
    return int(lines[-1][9:].split(b",")[0]) if lines else 0


def _write_tables(folder: SweepFolder, rows: tuple[Row, ...]) -> None:
    try:
        write_text(folder.folder / "table.csv", csv_text(rows))
        write_text(folder.folder / "table.md", markdown(rows))
    except OSError as error:
        raise BadInput(f"{folder.folder}: cannot be written: {error.strerror}") from error


def _only_first(say: Callable[[str], None]) -> Callable[[str], None]:
    def told(message: str) -> None:
        name = message.partition(":")[0]
        say(f"{name}: the runs write checkpoints and stop (Ctrl-C to stop at once)")

    return told
