"""Runs that are given so many minutes: ebmkit's trainer and the plain reference, and what their models are worth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from benchmarks.results.gathering import gradient_norm, rollbacks

import ebmkit
from ebmkit.bench.yardstick import build_reference, why_none
from ebmkit.console import Silent
from ebmkit.data.images import all_images
from ebmkit.device import choose_device
from ebmkit.energy_model import EnergyModel
from ebmkit.files import write_text
from ebmkit.model import save_model
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.trainer import Trainer

ENDLESS = 10**7
"""Steps that nobody reaches."""
LITERAL = {
    "regularizers": [{"use": "wgan_lp", "weight": 200.0}],
    "sampler": {"use": "langevin", "auto_ratio": 0.58, "noise": {"use": "linear", "start": 0.3, "end": 0.0}},
    "buffer.size": 10_000,
    "optimizer.learning_rate": 2e-4,
    "train.ema_decay": 0.999,
}
"""Table 7 and section 5, with the norm per sample; 0.58 is the reachability ratio of its 32x32 networks."""
RECIPE, REFERENCE, TABLE_7 = "recipe", "plain reference, the same values", "Table 7 read literally"


class Clock:
    """Seconds of training."""

    def __init__(self, device: str) -> None:
        self.device, self.begin = device, time.perf_counter()

    @property
    def seconds(self) -> float:
        """So far, without what was done while `paused`."""
        return time.perf_counter() - self.begin

    @contextmanager
    def paused(self) -> Iterator[float]:
        """Stop, after what the device still does, and say when."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        stopped = self.seconds
        yield stopped
        self.begin = time.perf_counter() - stopped


class Marks:
    """The models of a run, kept at equal times until the last one."""

    def __init__(self, recipe: Recipe, folder: Path, device: str, minutes: float, count: int) -> None:
        self.recipe, self.folder, self.clock = recipe, folder, Clock(device)
        self.left = [minutes * place / count for place in range(1, count + 1)]
        self.places: list[dict[str, Any]] = []

    def reached(self, energy: Callable[[], EnergyModel], step: int) -> bool:
        """Keep the model where a mark has passed; whether that was the last one."""
        if self.clock.seconds >= 60 * self.left[0]:
            with self.clock.paused() as seconds:
                mark, images = self.left.pop(0), step * self.recipe.train.batch_size
                path = self.folder / f"{mark:g}" / "model.safetensors"
                path.parent.mkdir(parents=True, exist_ok=True)
                save_model(path, energy(), self.recipe, images, step)
                self.places.append({"mark": mark, "step": step, "images": images, "seconds": round(seconds, 1)})
        return not self.left


def train(recipe: Recipe, folder: Path, device: str, minutes: float, count: int) -> list[dict[str, Any]]:
    """ebmkit's trainer."""
    run = RunFolder(folder / "run")
    run.create(recipe.to_toml())
    trainer = Trainer(recipe, run, device, Silent())
    marks = Marks(recipe, folder, device, minutes, count)
    trainer.train(lambda: marks.reached(lambda: trainer.averaged, trainer.step))
    return marks.places


def train_reference(recipe: Recipe, folder: Path, device: str, minutes: float, count: int) -> list[dict[str, Any]]:
    """The reference's loop."""
    torch.manual_seed(recipe.seed)
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    reference = build_reference(recipe, device, all_images(recipe.data))
    marks, step = Marks(recipe, folder, device, minutes, count), 0
    while not marks.reached(lambda: reference.ema, step):
        reference.train_step()
        step += 1
    return marks.places


def one(source: str, name: str, changes: Mapping[str, Any], folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Train a contestant and measure its models; what an earlier call did is read."""
    kept = folder / "run.json"
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    recipe = ebmkit.check(source, changes, warn=lambda text: None)
    device = choose_device(recipe.train.device)
    work = train_reference if name == REFERENCE else train
    places = work(recipe, folder, device, asked["minutes"], asked["marks"])
    floor: dict[str, float] = {}
    for place in places:
        last = place is places[-1]
        result = ebmkit.evaluate(
            folder / f"{place['mark']:g}" / "model.safetensors",
            count=asked["count"],
            metrics=asked["metrics"],
            extractor=asked["extractor"],
            floor=last,
        )
        place["metrics"] = {key: value for key, value in result.items() if isinstance(value, float)}
        floor = result.get("floor", floor)
    told = {
        "seed": recipe.seed,
        "places": places,
        "floor": floor,
        "norm": gradient_norm(folder / f"{places[-1]['mark']:g}"),
        "rollbacks": rollbacks(RunFolder(folder / "run")) if name != REFERENCE else 0,
    }
    write_text(kept, json.dumps(told) + "\n")
    return told


def contestants(source: str, changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The changes of each contestant, beside its seed."""
    recipe = ebmkit.check(source, changes, warn=lambda text: None)
    if reason := why_none(recipe):
        raise SystemExit(f"{source}: cannot be compared: {reason}")
    common = {
        **changes,
        "train.steps": ENDLESS,
        "train.checkpoint_every": ENDLESS,
        "train.sample_every": 0,
        "optimizer.learning_rate": recipe.optimizer.learning_rate(0.0),
    }
    literal = {**LITERAL, "sampler": {**LITERAL["sampler"], "steps": recipe.sampler.options.steps}}
    return {RECIPE: common, REFERENCE: common, TABLE_7: {**common, **literal}}
