"""Starting and resuming a run: from a recipe and a folder to a trained model."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ebmkit import recipe as recipes
from ebmkit.console import Logged, Silent
from ebmkit.device import choose_device, cpu_threads
from ebmkit.distributed.job import taking_part
from ebmkit.distributed.logs import RankLog
from ebmkit.distributed.place import Place, find_place
from ebmkit.distributed.world import World
from ebmkit.errors import BadInput, EbmkitError, RankFailed
from ebmkit.files import written
from ebmkit.pipeline import cross_check
from ebmkit.recipe import Recipe
from ebmkit.resuming import resumed_recipe
from ebmkit.run_folder import RunFolder, default_run_folder
from ebmkit.stopping import Stop, listening
from ebmkit.trainer import Outcome, Trainer
from ebmkit.view import View


def run_training(
    source: str | Path,
    set_values: Mapping[str, Any],
    run_dir: str | Path | None,
    resume: bool,
    view: View,
    place: Place | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Train a recipe in a new run folder, or resume the run in it; raises `EbmkitError`s.

    In a job of several processes each of them calls it; rank 0 decides and writes. Signals stop it, as `stop` hears.
    """
    if stop is None:
        with listening() as stop:
            return run_training(source, set_values, run_dir, resume, view, place, stop)
    place = place or find_place()
    with taking_part(place, view.say) as world, ExitStack() as held:
        start = _agreed(world, lambda: _begin(source, set_values, run_dir, resume, view, world, place, held))
        run, recipe = RunFolder(Path(start.folder)), recipes.from_table(start.table, start.source, start.name)
        if start.finished_at is not None:
            return Outcome(run.folder, start.finished_at, True)
        if not world.first:
            _require_shared(run, place)
        if world.size > 1:
            log = RankLog(run.logs, world.rank, redirect=not world.first)
            view = Logged(view if world.first else Silent(), log)
            held.enter_context(log.recording())
            world.say = view.say
            log.write(f"rank {world.rank} of {world.size}, process {os.getpid()} on {socket.gethostname()}")
        device = choose_device(recipe.train.device, place)
        held.enter_context(cpu_threads(recipe.train.threads))
        trainer = Trainer(recipe, run, device, view, world)
        if resume and world.first:
            # Only now: the checkpoint fits, so that a refused change leaves the run as it was.
            run.keep_recipe(recipe.to_toml())
            view.say(f"{run.folder}: going on from step {trainer.step} to {recipe.train.steps}")
        with stop.after_step(view.say):
            outcome = trainer.train(stop)
            if outcome.finished:
                return outcome
            # Any rank may have been asked, and all of them end with one code: Ctrl-C's, if that was among them.
            return replace(outcome, exit_code=max(world.all_gather(stop.exit_code)))


@dataclass(frozen=True)
class _Start:
    """What rank 0 found and decided, for all ranks."""

    folder: str
    table: Mapping[str, Any]
    source: str
    name: str
    finished_at: int | None = None


def _begin(
    source: str | Path,
    set_values: Mapping[str, Any],
    run_dir: str | Path | None,
    resume: bool,
    view: View,
    world: World,
    place: Place,
    held: ExitStack,
) -> _Start:
    """Check the recipe and take the run folder, which is `held` until training ends."""
    path = recipes.find(source)
    run = RunFolder(Path(run_dir) if run_dir else default_run_folder(path.stem))
    if resume:
        run.require()
        recipe = resumed_recipe(path, run, set_values, view.say)
    else:
        recipe = recipes.load(source, set_values)
    for warning in cross_check(recipe, str(source), world.size):
        view.say(f"warning: {warning}")
    choose_device(recipe.train.device, place)
    require_data(recipe)
    start = _Start(str(run.folder), recipe.to_table(), str(source), recipe.name)
    if not resume:
        # Two that start at once: the lock decides, before either has written anything.
        run.require_free()
        with written(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(run.locked())
    if not resume:
        run.require_free()
        held.enter_context(run.discarded_if_empty())
        run.create(recipe.to_toml())
        return start
    run.make_folders()
    run.clean()
    done = max((step for step, _ in run.complete_checkpoints()), default=0)
    if done < recipe.train.steps or not run.model.is_file():
        return start
    past = "" if done == recipe.train.steps else f", past train.steps = {recipe.train.steps}"
    view.say(f"{run.folder}: already finished, at step {done}{past}; --set train.steps=N goes on to step N")
    return replace(start, finished_at=done)


def _agreed(world: World, begin: Callable[[], _Start]) -> _Start:
    """Rank 0's start on every rank; where it cannot start, all end with its exit code."""
    if world.first:
        try:
            start = begin()
        except EbmkitError as error:
            world.broadcast(error.exit_code)
            raise
        world.broadcast(start)
        return start
    answer: Any = world.broadcast(None)
    if isinstance(answer, int):
        raise RankFailed("rank 0 could not start", answer)
    found: _Start = answer
    return found


def _require_shared(run: RunFolder, place: Place) -> None:
    if not run.recipe.is_file():
        raise BadInput(
            f"rank {place.rank} on {socket.gethostname()} does not see {run.folder.absolute()}: every machine of a job "
            "needs the run folder at the same path, on a file system that they share"
        )


def require_data(recipe: Recipe) -> None:
    """Missing shards are noticed before anything is written."""
    from ebmkit.data.patterns import expand

    expand(recipe.data.patterns, make=recipe.data.make)
