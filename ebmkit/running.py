"""Starting and resuming a run: from a recipe and a folder to a trained model."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from ebmkit import recipe as recipes
from ebmkit.device import choose_device, cpu_threads
from ebmkit.pipeline import cross_check
from ebmkit.recipe import Recipe
from ebmkit.resuming import resumed_recipe
from ebmkit.run_folder import RunFolder, default_run_folder
from ebmkit.trainer import Outcome, Trainer, View


def run_training(
    source: str | Path,
    set_values: Mapping[str, Any],
    run_dir: str | Path | None,
    resume: bool,
    view: View,
) -> Outcome:
    """Train a recipe in a new run folder, or resume the run in it; raises `EbmkitError`s."""
    path = recipes.find(source)
    run = RunFolder(Path(run_dir) if run_dir else default_run_folder(path.stem))
    if resume:
        run.require()
        recipe = resumed_recipe(path, run, set_values, view.say)
    else:
        recipe = recipes.load(source, set_values)
    for warning in cross_check(recipe, str(source)):
        view.say(f"warning: {warning}")
    device = choose_device(recipe.train.device)
    require_data(recipe)
    if not resume:
        run.create(recipe.to_toml())
    with cpu_threads(recipe.train.threads), run.locked(), nullcontext() if resume else run.discarded_if_empty():
        if resume:
            run.clean()
            done = max((step for step, _ in run.complete_checkpoints()), default=0)
            if done >= recipe.train.steps and run.model.is_file():
                past = "" if done == recipe.train.steps else f", past train.steps = {recipe.train.steps}"
                view.say(f"{run.folder}: already finished, at step {done}{past}; --set train.steps=N goes on to step N")
                return Outcome(run.folder, done, True)
        trainer = Trainer(recipe, run, device, view)
        if resume:
            # Only now: the checkpoint fits, so that a refused change leaves the run as it was.
            run.keep_recipe(recipe.to_toml())
            view.say(f"{run.folder}: going on from step {trainer.step} to {recipe.train.steps}")
        with stop_on_signals(view.say) as stop:
            return trainer.train(stop)


def require_data(recipe: Recipe) -> None:
    """Missing shards are noticed before anything is written."""
    from ebmkit.data.patterns import expand

    expand(recipe.data.patterns, make=recipe.data.make)


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask training to stop after the step; a second one stops at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        say(f"{signal.Signals(number).name}: writing a checkpoint after this step (once more to stop at once)")

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; elsewhere the caller's own hold.
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
