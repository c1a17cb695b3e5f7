"""Measuring the data: images a second from shards and cache, and how long a training step waits for them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from ebmkit.bench.timing import Plan, wait_for
from ebmkit.bench.training import Progress, open_trainer, split_step
from ebmkit.data.images import open_images
from ebmkit.data.source import ImageSource
from ebmkit.recipe import Recipe

SECONDS = 3.0
"""How long batches are taken."""


@dataclass(frozen=True)
class LoadingReport:
    """One way to the images: seconds to the first batch, images a second after it, share of a step that waits."""

    first: float
    images_per_second: float
    waiting: float


def measure_loading(
    recipe: Recipe, device: str, folder: Path, plan: Plan, progress: Progress
) -> dict[str, LoadingReport]:
    """Both ways, `streamed` with the recipe's workers and `cached`, whichever the recipe takes.

    A set larger than `data.cache_limit` is streamed both times.
    """
    found = {}
    for number, (name, cache) in enumerate({"streamed": "off", "cached": "device"}.items()):
        progress("data", number, 2)
        one = replace(recipe, data=recipe.data.model_copy(update={"cache": cache}))
        begin = time.perf_counter()
        with open_images(one.data, one.context(device), one.train.batch_size, warn=lambda text: None) as source:
            source.next()
            wait_for(device)
            first = time.perf_counter() - begin
            rate = _rate(source, device, one.train.batch_size)
        with open_trainer(one, device, folder / name, progress) as trainer:
            trainer.train_step()
            parts = split_step(trainer, plan)
        found[name] = LoadingReport(first, rate, parts["data"] / sum(parts.values()))
    progress("data", 2, 2)
    return found


def _rate(source: ImageSource, device: str, batch_size: int) -> float:
    begin, images, passed = time.perf_counter(), 0, 0.0
    while passed < SECONDS:
        source.next()
        wait_for(device)
        images += batch_size
        passed = time.perf_counter() - begin
    return images / passed
