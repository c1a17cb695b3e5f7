"""Starting and resuming a run: from a recipe and a folder to a trained model."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from ebmkit import overrides as overriding
from ebmkit import recipe as recipes
from ebmkit.device import choose_device
from ebmkit.errors import BadInput
from ebmkit.pipeline import cross_check
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder, default_run_folder
from ebmkit.trainer import Outcome, Trainer, View

FIXED = ("energy", "buffer", "time_steps", "data.image_size", "data.channels")
"""What a resumed run cannot change: its checkpoint would not fit."""


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
        recipe = _resumed_recipe(path, run, set_values, view.say)
    else:
        recipe = recipes.load(source, set_values)
    for warning in cross_check(recipe, str(source)):
        view.say(f"warning: {warning}")
    device = choose_device(recipe.train.device)
    if not resume:
        _require_data(recipe)
        run.create(recipe.to_toml())
    with run.locked(), nullcontext() if resume else run.discarded_if_empty():
        if resume:
            run.clean()
            done = max((step for step, _ in run.complete_checkpoints()), default=0)
            if done >= recipe.train.steps and run.model.is_file():
                view.say(f"{run.folder}: already finished, at step {done}; --set train.steps=N goes on to step N")
                return Outcome(run.folder, done, True)
            run.keep_recipe(recipe.to_toml())
        trainer = Trainer(recipe, run, device, view)
        if resume:
            view.say(f"{run.folder}: going on from step {trainer.step} to {recipe.train.steps}")
        with stop_on_signals(view.say) as stop:
            return trainer.train(stop)


def _require_data(recipe: Recipe) -> None:
    """Missing shards are noticed before a run folder is made."""
    from ebmkit.data.patterns import expand

    expand(recipe.data.patterns, make=recipe.data.make)


def _resumed_recipe(path: Path, run: RunFolder, set_values: Mapping[str, Any], say: Callable[[str], None]) -> Recipe:
    """The run's own recipe with this call's `--set` values: what it was started with, it goes on with."""
    for key in set_values:
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
            raise BadInput(f"--set {key}: a resumed run cannot change this; start a new one with another --run-dir")
    own = recipes.read_toml(run.recipe)
    recipe = recipes.from_table(own, str(run.recipe), path.stem, set_values)
    _mention_differences(path, own, set_values, say)
    return recipe


def _mention_differences(
    path: Path, own: Mapping[str, Any], set_values: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """A recipe file that was edited since does not change a run; say so instead of ignoring it in silence."""
    try:
        given = recipes.from_table(recipes.read_toml(path), str(path), path.stem, set_values).to_table()
    except BadInput:
        return
    before = _flat(overriding.apply(own, set_values))
    now = _flat(given)
    different = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if different:
        shown = ", ".join(different[:6]) + (", ..." if len(different) > 6 else "")
        say(f"note: the run keeps its own recipe.toml, which differs from {path} in {shown}; change it by --set")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{path}.{i}").items()}
    return {path: list(value) if isinstance(value, tuple) else value}


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
