"""`ebmkit train`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ebmkit.cli.launching import Gpus, Processes, launch_options, launch_workers
from ebmkit.console import LiveView, Silent, console
from ebmkit.errors import BadInput
from ebmkit.stopping import TRY_AGAIN, Preempted, Stop, listening

SetValues = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; may be given several times."),
]


def collect(set_values: list[str] | None, extra: list[str] | None) -> dict[str, object]:
    """The overrides of `--set`, and what a shell's brace expansion left behind it (`--set a=x-{0..1}` is two words)."""
    from ebmkit import overrides as overriding

    for word in extra or []:
        if "=" not in word:
            raise BadInput(
                f"unexpected argument '{word}'; the recipe or model comes first, changes are --set key=value"
            )
    return overriding.parse([*(set_values or []), *(extra or [])])


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")] = "digits",
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="KEY=VALUE")] = None,
    set_values: SetValues = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where the run goes; runs/NAME by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the run folder.")] = False,
    gpus: Gpus = None,
    processes: Processes = None,
) -> None:
    """Train a recipe: writes metrics, sample grids, checkpoints and model.safetensors into a run folder.

    Ctrl-C writes a checkpoint and says how to go on. With --resume, --set train.steps=N trains on to step N.
    SIGTERM and SIGUSR1 do the same, and end with exit code 75: a scheduler may start it again.

    With --gpus N it trains on N GPUs of this machine; torchrun, deepspeed and srun start it on several machines.

    Example: ebmkit train recipes/cifar10_resnet.toml --set train.batch_size=64 --run-dir runs/small
    """
    overrides = collect(set_values, extra)
    try:
        with listening(to_the_end=True) as stop:
            _train(recipe, overrides, run_dir, resume, gpus, processes, stop)
    except Preempted:
        console(stderr=True).print("stopped before the first step, nothing is lost; give the same command again")
        sys.exit(TRY_AGAIN)


def _train(
    recipe: str,
    overrides: dict[str, object],
    run_dir: Path | None,
    resume: bool,
    gpus: Gpus,
    processes: Processes,
    stop: Stop,
) -> None:
    place, target = launch_workers(gpus, processes), console()
    from ebmkit.running import run_training

    if place.rank:
        sys.exit(run_training(recipe, overrides, run_dir, resume, Silent(), place, stop).exit_code)
    with LiveView(target) as view:
        outcome = run_training(recipe, overrides, run_dir, resume, view, place, stop)
    run = outcome.folder
    if not outcome.finished:
        again = ["ebmkit", "train", recipe, "--run-dir", str(run), "--resume", *launch_options(place)]
        target.print(
            f"stopped at step {outcome.step}, nothing is lost; go on with:\n  {shlex.join(again)}", markup=False
        )
        sys.exit(outcome.exit_code)
    grids = sorted((run / "samples").glob("*.png"))
    target.print(f"trained to step {outcome.step}; model: {outcome.model}", markup=False)
    if grids:
        target.print(f"samples: {grids[-1]}", markup=False)
    target.print(
        f"draw more: ebmkit sample {shlex.quote(str(run / 'model.safetensors'))} --count 64 --out grid.png",
        markup=False,
    )


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(train)
