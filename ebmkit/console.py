"""What a person sees of long work: a live view in a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ebmkit.printable import printable
from ebmkit.watchdog.journal import COUNTED

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from ebmkit.distributed.logs import RankLog
    from ebmkit.view import View

LABELS = {
    "images_per_second": "images/s",
    "loss": "loss",
    "energy_data": "energy of data",
    "energy_samples": "energy of samples",
    "gradient_norm": "gradient norm",
    "learning_rate": "learning rate",
}
"""How the live view names the metrics that it always shows first; others follow under their own names."""
HIDDEN = ("step", "images", "seconds", "peak_memory_mb", "skipped_images", "contrastive_divergence")
PLAIN = ("loss", "energy_data", "energy_samples"), ("gradient_norm", "learning_rate", "images_per_second")
"""What a line in a pipe begins and ends with; the others, such as penalties, stand between."""
WARNING = "warning: "
"""How messages begin that tell of something wrong."""
MOST_WARNINGS = 5
WIDEST = 1000
"""Columns of a table in a pipe."""
PLAIN_SECONDS = 5.0
"""Seconds between lines in a pipe."""


def console(stderr: bool = False) -> Console:
    """A rich console that is plain where the output is no terminal, and never prints control characters."""
    from rich.console import Console

    class Harmless(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    return Harmless(stderr=stderr, highlight=False, soft_wrap=True)


def print_table(target: Console, table: Table) -> None:
    """A table as wide as it needs where the output is no terminal: nobody reads a file of folded cells."""
    if not target.is_terminal:
        target.width = WIDEST
    target.print(table)


def progress_bar(target: Console) -> Progress:
    """The one style of progress bar; each task's field `unit` names what is counted."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=target,
        transient=True,
        disable=not target.is_terminal,
    )


@contextmanager
def counting(target: Console, description: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar as a callback `(done, total)`; silent in a pipe."""
    with progress_bar(target) as progress:
        task = progress.add_task(description, total=None, unit=unit)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class LiveView:
    """Shows a training run in a terminal, or prints a line now and then in a pipe."""

    def __init__(self, target: Console) -> None:
        from rich.live import Live

        self.console = target
        self.progress = progress_bar(target)
        self.row: Mapping[str, float] = {}
        self.live = Live(self, console=target, refresh_per_second=4, transient=True, auto_refresh=target.is_terminal)
        self.steps = 0
        self.task = self.progress.add_task("loading images", total=None, unit="images")
        self.printed = float("-inf")
        self.training = False
        self.warnings: list[str] = []

    def __enter__(self) -> LiveView:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
        # Of hours of output, the end is what a person reads.
        if self.warnings:
            count = len(self.warnings)
            self.say(f"{count} warning{'s' if count > 1 else ''} while training:")
            for message in self.warnings[:MOST_WARNINGS]:
                self.say(f"  {message}")
            if count > MOST_WARNINGS:
                self.say("  ... and more, above")

    def __rich__(self) -> Group:
        """The picture that rich draws."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 3))
        shown = {LABELS[name]: self.row[name] for name in LABELS if name in self.row} | _others(self.row)
        # Not as markup: rich would show it as it is beside a message that is printed without markup.
        cells = [Text.assemble((name, "dim"), f" {value:.5g}") for name, value in shown.items()]
        for first in range(0, len(cells), 3):
            table.add_row(*cells[first : first + 3])
        return Group(self.progress, table)

    def begin(self, first: int, steps: int) -> None:
        """Training goes from step `first` to `steps`."""
        self.steps = steps
        self.training = True
        # A fresh task: the time to load images does not count into the time that is left.
        self.progress.remove_task(self.task)
        self.task = self.progress.add_task("training", total=steps, completed=first, unit="steps")

    def step(self, step: int) -> None:
        """A step is done."""
        self.progress.update(self.task, completed=step)

    def metrics(self, row: Mapping[str, float]) -> None:
        """A line of metrics.jsonl."""
        self.row = row
        now = time.monotonic()
        last = row["step"] >= self.steps
        if not self.console.is_terminal and (last or now - self.printed >= PLAIN_SECONDS):
            self.printed = now
            begin, end = PLAIN
            names = [*begin, *_others(row), *end]
            values = "  ".join(f"{name} {row[name]:.5g}" for name in names if name in row)
            self.console.print(f"step {row['step']:.0f}/{self.steps}  {values}", markup=False)

    def say(self, message: str) -> None:
        """Something that a person should know; warnings that come while it trains are repeated at the end."""
        if self.training and message.startswith(WARNING):
            self.warnings.append(message.removeprefix(WARNING))
        self.console.print(message, markup=False)

    def loading(self, done: int, total: int | None) -> None:
        """Images decoded into the cache, of how many."""
        self.progress.update(self.task, completed=done, total=total)


class Logged:
    """Another view, and each message in the rank's log as well."""

    def __init__(self, view: View, log: RankLog) -> None:
        self.begin, self.step, self.metrics, self.loading = view.begin, view.step, view.metrics, view.loading
        self.say = log.also(view.say)


def _others(row: Mapping[str, float]) -> dict[str, float]:
    """The metrics of components, such as penalties, in the order of the row."""
    return {
        name: value
        for name, value in row.items()
        if name not in LABELS and name not in HIDDEN and not (name in COUNTED and value == 0)
    }


class Silent:
    """Watches nothing; messages go to `say`."""

    def __init__(self, say: Callable[[str], None] = lambda message: None) -> None:
        self.say = say

    def begin(self, first: int, steps: int) -> None:
        """Ignored."""

    def step(self, step: int) -> None:
        """Ignored."""

    def metrics(self, row: Mapping[str, float]) -> None:
        """Ignored."""

    def loading(self, done: int, total: int | None) -> None:
        """Ignored."""
