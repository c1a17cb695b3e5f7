"""One short run with a step size, and the energies of its samples and of real images."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmkit.data import open_images
from ebmkit.device import cpu_threads
from ebmkit.errors import DataError, TrainingFailed
from ebmkit.model import load_model
from ebmkit.recipe import Recipe
from ebmkit.running import run_training
from ebmkit.sampling import from_uint8
from ebmkit.tuning.rule import Trial
from ebmkit.view import View

BATCH = 64
"""Images whose energies are computed at a time."""
FORGOTTEN = 10
"""Times that the moving average of a short run forgets: a decay for long runs would still remember the start."""


@dataclass(frozen=True)
class Energies:
    """At t = 1: the mean over samples, and mean and standard deviation over real images."""

    samples: float
    data: float
    deviation: float

    @property
    def gap(self) -> float:
        """How far the samples are below real images, in standard deviations of these."""
        return (self.data - self.samples) / max(self.deviation, 1e-12)


def short_values(recipe: Recipe, steps: int) -> dict[str, Any]:
    """What a short run changes in a recipe: its length, nothing written on the way, and a shorter memory."""
    return {
        "train.steps": steps,
        "train.sample_every": 0,
        "train.checkpoint_every": steps,
        "train.keep_checkpoints": 1,
        "train.ema_decay": min(recipe.train.ema_decay, max(0.0, 1 - FORGOTTEN / steps)),
        "trackers": [],
    }


def run_trial(
    source: str,
    recipe: Recipe,
    values: Mapping[str, Any],
    step_size: float,
    why: str,
    steps: int,
    seeds: Sequence[int],
    count: int,
    view: View,
) -> Trial:
    """Train `steps` updates with each seed, in a folder that is deleted; raises `KeyboardInterrupt` when stopped."""
    begin, found = time.perf_counter(), []
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="ebmkit-tune-") as folder:
            changed = {**values, **short_values(recipe, steps), "sampler.step_size": step_size, "seed": seed}
            try:
                outcome = run_training(source, changed, Path(folder) / "run", False, view)
            except TrainingFailed:
                return Trial(step_size, why, float("inf"), seconds=time.perf_counter() - begin)
            if not outcome.finished:
                raise KeyboardInterrupt
            with cpu_threads(recipe.train.threads):
                model = load_model(outcome.model, recipe.train.device)
                found.append(measure(model, model.sample(count, seed), real_images(model.recipe, count, view)))
    gaps = [energies.gap for energies in found]
    return Trial(
        step_size,
        why,
        statistics.mean(gaps),
        statistics.stdev(gaps) if len(gaps) > 1 else 0.0,
        statistics.mean(energies.data for energies in found),
        statistics.mean(energies.samples for energies in found),
        time.perf_counter() - begin,
    )


def measure(energy: Callable[[Tensor], Tensor], samples: Tensor, real: Tensor) -> Energies:
    """The energies at t = 1 of samples and real images, each `[B, C, H, W]` in [-1, 1]."""
    of_samples, of_data = (_energies(energy, x) for x in (samples, real))
    return Energies(float(of_samples.mean()), float(of_data.mean()), float(of_data.std()))


def _energies(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([energy(x[first : first + BATCH]) for first in range(0, len(x), BATCH)]).double()


def real_images(recipe: Recipe, count: int, view: View) -> Tensor:
    """`count` real images, `[count, C, H, W]` in [-1, 1], the first in the order of the recipe's seed."""
    options = recipe.data.model_copy(update={"cache": "off", "workers": 0, "shuffle": max(count, BATCH)})
    size, found = min(count, BATCH), []
    with open_images(options, recipe.context(), size, warn=view.say) as images:
        for _ in range(-(-count // size)):
            batch = images.next().images
            if not len(batch):
                raise DataError("the data has no image")
            found.append(from_uint8(batch))
    return torch.cat(found)[:count]
