"""`ebmkit bench`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from ebmkit.cli.sampling import Device
from ebmkit.cli.training import SetValues, collect
from ebmkit.console import console, progress_bar
from ebmkit.errors import BadInput


def bench(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")] = "digits",
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="KEY=VALUE")] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Measure training steps, and how their time is split.")
    ] = False,
    sample: Annotated[bool, typer.Option("--sample", help="Measure sampling.")] = False,
    data: Annotated[bool, typer.Option("--data", help="Measure reading images: streamed and from the cache.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure here, too.", dir_okay=False)
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the split and the ratios.", dir_okay=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps (or sweeps) in a round; what fits 20 s by default, at most 20.")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds, in which ebmkit and the reference take turns; 2 to 10 by default."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time; train.batch_size by default.")
    ] = None,
    device: Device | None = None,
    set_values: SetValues = None,
) -> None:
    """Measure how fast a recipe trains and samples on this machine, side by side with a plain PyTorch reference.

    Without --train, --sample and --data it measures training and sampling. It needs no shards: where the recipe's are
    missing, images are made up. Nothing is written but the files that you name.

    Example: ebmkit bench cifar10_unet --train --batch-size 4 --set energy.channels=32 --json cifar10.json
    """
    changes = collect(set_values, extra)
    if batch_size is not None:
        changes["train.batch_size"] = batch_size
    if device is not None:
        changes["train.device"] = device
    for path in (json_file, picture):
        if path is not None and not os.access(path.resolve().parent, os.W_OK):
            raise BadInput(f"{path}: the folder {path.parent} does not exist or cannot be written")
    if picture is not None and picture.suffix not in (".png", ".svg", ".pdf"):
        raise BadInput(f"{picture}: a picture ends in .png, .svg or .pdf")
    from ebmkit.bench.running import run_bench
    from ebmkit.bench.showing import show
    from ebmkit.bench.timing import Plan
    from ebmkit.files import write_atomically, write_text

    asked = {"training": train, "sampling": sample, "data": data}
    parts = frozenset(name for name, wanted in asked.items() if wanted) or frozenset(("training", "sampling"))
    errors = console(stderr=True)
    with progress_bar(errors) as bar:
        task = bar.add_task("starting", total=None, unit="")

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        report = run_bench(
            recipe, changes, parts, Plan(steps, rounds), lambda text: errors.print(text, markup=False), progress
        )
    show(report, console())
    if json_file is not None:
        write_text(json_file, json.dumps(report.to_table(), indent=2) + "\n")
    if picture is not None:
        from ebmkit.bench.picture import draw

        write_atomically(picture, lambda temporary: draw(report, temporary))


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(bench)
