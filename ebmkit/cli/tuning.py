"""`ebmkit tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebmkit.cli.training import SetValues, collect
from ebmkit.console import Silent, console, print_table, progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from ebmkit.tuning.rule import Trial


def tune(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="KEY=VALUE")] = None,
    out: Annotated[Path, typer.Option(help="The new recipe; never overwritten.")] = Path("tuned.toml"),
    set_values: SetValues = None,
    trials: Annotated[int, typer.Option(min=1, max=50, help="Step sizes to try at most.")] = 6,
    steps: Annotated[int, typer.Option(min=10, help="Updates of each short run.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Short runs for each step size.")] = 2,
    count: Annotated[int, typer.Option(min=8, help="Samples, and real images, whose energies are compared.")] = 256,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Minutes; no trial begins that does not fit into them.")
    ] = None,
) -> None:
    """Find sampler.step_size by short runs: after a sweep, samples should have slightly less energy than real images.

    The reachability rule gives the first step size, the energies the others (Appendix A.1 of the paper). --set changes
    the trials only, for example to a smaller network; the new recipe is the old one with another step size.

    Example: ebmkit tune digits --out digits_tuned.toml --steps 200 --set energy.channels=16
    """
    values = collect(set_values, extra)
    target, errors = console(), console(stderr=True)
    from ebmkit.tuning.running import Limits, tune

    seconds = None if budget is None else 60 * budget
    with progress_bar(errors) as bar:
        task = bar.add_task("tuning", total=None, unit="steps")

        class Watching(Silent):
            def step(self, step: int) -> None:
                bar.update(task, completed=step, total=steps)

        def begin(number: int, step_size: float) -> None:
            bar.update(task, description=f"trial {number}, step size {step_size:g}")

        def tell(trial: Trial) -> None:
            told = f"step size {trial.step_size:g} ({trial.why}): gap {trial.gap:.2f}, {trial.verdict}"
            target.print(told, markup=False)

        watching = Watching(lambda message: errors.print(message, markup=False))
        limits = Limits(trials, steps, range(seeds), count, seconds)
        outcome = tune(recipe, out, values, limits, watching, tell, begin)
    _show(outcome.trials, recipe, values, target)
    taken = outcome.best
    words = "fits" if taken.fits else f"comes nearest, but does not fit: {outcome.reason}"
    target.print(f"step_size = {taken.step_size:g} {words}; recipe: {outcome.recipe}", markup=False)


def _show(trials: Sequence[Trial], recipe: str, values: Mapping[str, object], target: Console) -> None:
    from rich.table import Table

    from ebmkit.tuning.running import reach_of

    head = ("step size", "reach", "energy of data", "of samples", "gap", "seconds", "verdict")
    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for trial in sorted(trials, key=lambda trial: trial.step_size):
        reach = reach_of(recipe, values, trial.step_size)
        spread = f" ± {trial.spread:.2f}" if trial.spread else ""
        cells = [f"{trial.step_size:g}", "" if reach is None else f"{reach:.2f}"]
        cells += [f"{trial.energy_data:.2f}", f"{trial.energy_samples:.2f}", f"{trial.gap:.2f}{spread}"]
        table.add_row(*cells, f"{trial.seconds:.0f}", trial.verdict, style="bold green" if trial.fits else "")
    print_table(target, table)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(tune)
