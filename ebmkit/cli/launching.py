"""`--gpus` and `--processes`: this command in several processes of this machine."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from ebmkit.console import console
from ebmkit.distributed.launch import launch
from ebmkit.distributed.place import Place, find_place
from ebmkit.errors import BadInput

Gpus = Annotated[int | None, typer.Option(min=1, help="Use so many GPUs of this machine, a process for each.")]
Processes = Annotated[int | None, typer.Option(min=1, help="Use so many processes on this machine's CPUs.")]
_NAMES = ("--gpus", "--processes")


def launch_workers(gpus: int | None, processes: int | None) -> Place:
    """This process's place, or the end of it: for several, run this command in as many, and exit with their code."""
    if gpus is not None and processes is not None:
        raise BadInput("--gpus and --processes are two ways to start a job: give one of them")
    place, count = find_place(), gpus if gpus is not None else processes
    if count is None:
        return place
    if not place.alone:
        raise BadInput("--gpus and --processes start a job on this machine, but this process is already part of one")
    device = "cpu" if processes is not None else "cuda"
    if count == 1:
        return Place(device=device)
    say = partial(console(stderr=True).print, markup=False)
    sys.exit(launch(without_launching(sys.argv[1:]), count, device, say))


def launch_options(place: Place) -> list[str]:
    """The options with which this process's job was started by ebmkit itself."""
    if place.launcher is None:
        return []
    return ["--processes" if place.device == "cpu" else "--gpus", str(place.world_size)]


def without_launching(arguments: list[str]) -> list[str]:
    """The command line of the workers: the same one, without `--gpus N` and `--processes N`."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in _NAMES:
            next(words, None)
        elif not word.startswith(tuple(f"{name}=" for name in _NAMES)):
            kept.append(word)
    return kept
