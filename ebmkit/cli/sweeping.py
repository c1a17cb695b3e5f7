"""`ebmkit sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebmkit.cli.training import SetValues, collect
from ebmkit.console import console, print_table, progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ebmkit.sweeps.table import Row


def sweep(
    sweep_file: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep file, or the name of a shipped sweep.")],
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="KEY=VALUE")] = None,
    set_values: SetValues = None,
    out_dir: Annotated[Path | None, typer.Option(help="Where the runs go; runs/NAME by default.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each a process of its own.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each run.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs, check them, and train none.")] = False,
) -> None:
    """Train and evaluate a recipe with many values, and compare: ends in a table, also as table.csv and table.md.

    All runs are checked before the first begins. Each is an ordinary run folder. Call it again to go on: finished runs
    are kept, a stopped or killed one resumes, a failed one is tried again. Values may be added to the file meanwhile.
    --set changes a key of all runs.

    Example: ebmkit sweep digits_small --out-dir runs/digits_small --jobs 2
    """
    target, overrides = console(), collect(set_values, extra)
    if dry_run:
        _list_runs(sweep_file, overrides, target)
        return
    from ebmkit.sweeps.running import run_sweep

    with _Progress(target) as view:
        outcome = run_sweep(sweep_file, out_dir, jobs, threads, view, overrides)
    _show(outcome.rows, target)
    target.print(f"tables: {outcome.folder / 'table.csv'} and table.md", markup=False)
    if outcome.stopped:
        target.print("stopped, nothing is lost; the same command goes on", markup=False)
        sys.exit(outcome.exit_code)
    sys.exit(1 if outcome.failed else 0)


def _list_runs(source: str, overrides: dict[str, object], target: Console) -> None:
    from ebmkit.binder import show
    from ebmkit.sweeps.evaluating import evaluate_words
    from ebmkit.sweeps.file import load_sweep
    from ebmkit.sweeps.plan import plan

    found = load_sweep(source, overrides)
    runs = plan(found, lambda message: console(stderr=True).print(message, markup=False))
    evaluate_words(found)
    for run in runs:
        values = " ".join(f"{key}={show(value)}" for key, value in run.values.items())
        steps = run.recipe.train.steps
        line = f"{run.name}: {values} seed={run.seed} ({steps:,} steps, T*K = {run.gradients})"
        target.print(line, markup=False)
    target.print(f"{len(runs)} run{'s' if len(runs) != 1 else ''} of {found.recipe}, all good", markup=False)


class _Progress:
    """Bars in a terminal: the sweep's and one for each run at work; in a pipe a line when a run begins and ends."""

    def __init__(self, target: Console) -> None:
        self.console, self.bars = target, progress_bar(target)
        self.total = self.over = 0
        self.whole = self.bars.add_task("sweep", total=None, unit="runs")
        self.tasks: dict[str, object] = {}

    def __enter__(self) -> _Progress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def say(self, message: str) -> None:
        """Something that a person should know."""
        self.console.print(message, markup=False)

    def begin(self, done: int, total: int) -> None:
        """So many of the runs are finished already."""
        self.over, self.total = done, total
        self.bars.update(self.whole, completed=done, total=total)
        self.say(f"{total} runs" + (f", {done} of them finished before" if done else ""))

    def started(self, name: str, steps: int) -> None:
        """A run begins or goes on."""
        self.tasks[name] = self.bars.add_task(name, total=steps, unit="steps")
        if not self.console.is_terminal:
            self.say(f"{name}: begins")

    def stepped(self, name: str, doing: str, step: int) -> None:
        """A run is at this step."""
        self.bars.update(self.tasks[name], completed=step, description=f"{name} ({doing})")  # type: ignore[arg-type]

    def ended(self, row: Row) -> None:
        """A run is finished, failed or stopped."""
        self.over += 1
        self.bars.remove_task(self.tasks.pop(row.name))  # type: ignore[arg-type]
        self.bars.update(self.whole, completed=self.over)
        told = ", ".join(f"{name} {value:.4g}" for name, value in row.metrics.items()) or row.error or ""
        self.say(f"[{self.over}/{self.total}] {row.name}: {row.state}{', ' if told else ''}{told}; {row.seconds:.0f} s")


def _show(rows: Sequence[Row], target: Console) -> None:
    from rich.table import Table

    from ebmkit.sweeps.table import failures, means_of, table_of

    parts = [table_of(rows), means_of(rows)]
    for part in parts:
        if part is None:
            continue
        head, cells = part
        table = Table(*head, box=None, pad_edge=False, header_style="bold")
        for line in cells:
            table.add_row(*line, style="red" if "failed" in line else "")
        print_table(target, table)
        target.print()
    for sentence in failures(rows):
        target.print(sentence, markup=False, style="red")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(sweep)
