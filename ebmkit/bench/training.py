"""Measuring training steps: ebmkit's and the reference's in turn, then the sections of ebmkit's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ebmkit.bench.counting import Cost, cost_of
from ebmkit.bench.images import made_up
from ebmkit.bench.memory import PeakMemory
from ebmkit.bench.timing import Plan, Ratio, Stopwatch, Timing, interleaved, ratio, seconds_of, split_of
from ebmkit.bench.yardstick import build_reference
from ebmkit.console import Silent
from ebmkit.data.images import all_images
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.sections import SECTIONS, Unwatched
from ebmkit.trainer import Trainer

IMAGES = 10_000
"""Real images that the reference holds at most: it has no data to wait for."""
SPLIT_STEPS = 10
"""Steps whose sections are timed at most."""

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and all of it."""


@dataclass(frozen=True)
class TrainingReport:
    """Times of a step. `split` has the seconds of each section; the reference's part is None where there is none.

    `compiling` are the seconds before the first step in which the network was compiled.
    """

    batch_size: int
    ebmkit: Timing
    split: dict[str, float]
    finite: bool
    fast: str
    compiling: float
    reference: Timing | None = None
    ratio: Ratio | None = None
    cost: Cost | None = None


def measure_training(
    recipe: Recipe, device: str, folder: Path, plan: Plan, compare: bool, progress: Progress
) -> TrainingReport:
    """Build both, take their first steps, and let them take turns; `compare` says whether there is a reference."""
    progress("training", 0, 1)
    size = recipe.train.batch_size
    cost = cost_of_a_step(recipe, device) if compare else None
    with PeakMemory(device) as memory, open_trainer(recipe, device, folder, progress) as trainer:
        first = {"ebmkit": seconds_of(trainer.train_step, device)}
        seconds_of(trainer.train_step, device)
        calls: dict[str, Callable[[], object]] = {"ebmkit": trainer.train_step}
        memory.read()
        peaks = {"ebmkit": memory.rise}
        if compare:
            images = all_images(recipe.data, IMAGES).to(device)
            with PeakMemory(device) as memory:
                reference = build_reference(recipe, device, images)
                calls["reference"] = reference.train_step
                first["reference"] = seconds_of(reference.train_step, device)
                seconds_of(reference.train_step, device)
            peaks["reference"] = memory.rise
        trainer.step = 0  # the schedule of the learning rate begins anew, however few steps the recipe has
        found = interleaved(calls, device, plan, lambda done, total: progress("training", done, total))
        timings = {name: Timing(found[name], first[name], peaks[name]) for name in calls}
        split = split_step(trainer, plan)
        counts = trainer.watchdog.guard.read()
        finite = not counts["not_finite"] and not counts["bad_loss"]
        fast, compiling = str(trainer.parts), trainer.energy.compiling
    mine, others = timings["ebmkit"], timings.get("reference")
    compared = ratio(mine, others) if others else None
    return TrainingReport(size, mine, split, finite, fast, compiling, others, compared, cost)


@contextlib.contextmanager
def open_trainer(recipe: Recipe, device: str, folder: Path, progress: Progress) -> Iterator[Trainer]:
    """A trainer of a run in the new `folder`, before its first step."""
    run = RunFolder(folder)
    run.create(recipe.to_toml())
    trainer = Trainer(recipe, run, device, _Loading(progress))
    trainer.model.train()
    with contextlib.closing(trainer.data):
        yield trainer


def split_step(trainer: Trainer, plan: Plan) -> dict[str, float]:
    """Seconds of each section of a training step, and of the `other` things in it, in steps of their own."""
    # Waiting for the device at each border costs time, so that these steps are in no other figure.
    watch = trainer.sections = Stopwatch(trainer.device)
    steps = 1
    once = seconds_of(trainer.train_step, trainer.device)
    if once * SPLIT_STEPS < plan.seconds:
        steps = SPLIT_STEPS
        watch.seconds.clear()
        once = seconds_of(trainer.train_step, trainer.device, steps)
    trainer.sections = Unwatched()
    found = split_of(watch, once, steps)
    return {name: found.get(name, 0.0) for name in (*SECTIONS, "other")}


def cost_of_a_step(recipe: Recipe, device: str) -> Cost:
    """FLOPs and traffic of a step of the reference at the recipe's batch, from steps of one image and of two."""
    images = made_up(2, recipe.data.shape)
    one, two = (cost_of(build_reference(recipe, device, images, size).train_step) for size in (1, 2))
    return one.at(recipe.train.batch_size, two)


class _Loading(Silent):
    """Shows the decoding of images."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def loading(self, done: int, total: int | None) -> None:
        """Images decoded into the cache."""
        self.progress("loading images", done, total or 0)
