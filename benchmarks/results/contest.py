"""Runs that are given so many minutes: ebmkit's trainer and the plain reference, and what their models are worth."""

from __future__ import annotations

import json
import shutil
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
from ebmkit.device import choose_device, cpu_threads
from ebmkit.energy_model import EnergyModel
from ebmkit.errors import BadInput, EbmkitError
from ebmkit.files import write_text
from ebmkit.model import save_model
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.trainer import Trainer

Values = dict[str, Any]

ENDLESS = 10**7
"""Steps that nobody reaches; `train.fast = "auto"` takes the run for a long one, and compiles on a GPU."""
RECIPE, REFERENCE, LITERAL = "recipe", "plain reference, the same values", "Table 7 read literally"
TABLE_7: Values = {
    "regularizers": [{"use": "wgan_lp", "weight": 200.0}],
    "sampler": {"use": "langevin", "auto_ratio": 0.55, "noise": {"use": "linear", "start": 0.3, "end": 0.0}},
    "optimizer.learning_rate": 2e-4,
}
"""As `cifar16_choices` has it: the norm per sample, and the reachability ratio of the 32x32 networks' step size."""


def contestants(source: str, changes: Mapping[str, Any]) -> dict[str, Values]:
    """The changes of each contestant but its seed; raises `BadInput` where one cannot be had.

    What Table 7 says is not what `changes` say of the same part.
    """
    recipe = ebmkit.check(source, changes, warn=_unheard)
    if reason := why_none(recipe):
        raise BadInput(f"{source}: cannot be compared: {reason}")
    rate = "optimizer.learning_rate"
    common = {key: value for key, value in changes.items() if not key.startswith(rate)}
    common |= {"train.steps": ENDLESS, "train.sample_every": 0, rate: recipe.optimizer.learning_rate(0.0)}
    literal = {key: value for key, value in common.items() if key.partition(".")[0] not in ("regularizers", "sampler")}
    literal |= TABLE_7 | {"sampler": {**TABLE_7["sampler"], "steps": recipe.sampler.options.steps}}
    found = {RECIPE: common, REFERENCE: common, LITERAL: literal}
    for values in found.values():
        ebmkit.check(source, values, warn=_unheard)
    return found


class Clock:
    """Seconds of training, of which `spent` have passed."""

    def __init__(self, device: str, spent: float = 0.0) -> None:
        self.device, self.begin = device, time.perf_counter() - spent

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

    def __init__(self, recipe: Recipe, folder: Path, clock: Clock, minutes: float, count: int) -> None:
        self.recipe, self.folder, self.clock = recipe, folder, clock
        self.left = [minutes * place / count for place in range(1, count + 1)]
        self.places: list[Values] = []

    def reached(self, energy: Callable[[], EnergyModel], step: int) -> bool:
        """Keep the model where a mark has passed; whether that was the last one."""
        if self.clock.seconds >= 60 * self.left[0]:
            with self.clock.paused() as seconds:
                mark, images = self.left.pop(0), step * self.recipe.train.batch_size
                path = model_at(self.folder, mark)
                path.parent.mkdir(parents=True, exist_ok=True)
                save_model(path, energy(), self.recipe, images, step)
                self.places.append({"mark": mark, "step": step, "images": images, "seconds": round(seconds, 1)})
        return not self.left


def model_at(folder: Path, mark: float) -> Path:
    """The model of so many minutes."""
    return folder / f"{mark:g}" / "model.safetensors"


def compete(source: str, name: str, changes: Mapping[str, Any], folder: Path, asked: Mapping[str, Any]) -> None:
    """Train a contestant, and keep its models and `places.json`; a run that has ended is not repeated.

    Raises `BadInput` where the folder has a run of other values.
    """
    recipe = ebmkit.check(source, changes, warn=_unheard)
    told = {"minutes": asked["minutes"], "marks": asked["marks"], "recipe": recipe.to_toml()}
    kept = folder / "places.json"
    if kept.is_file():
        if json.loads(kept.read_text(encoding="utf-8"))["of"] != told:
            raise BadInput(f"{folder}: has a run of other values; move it away, or choose another --folder")
        return
    # What a stopped call has left.
    shutil.rmtree(folder, ignore_errors=True)
    device, error, places = choose_device(recipe.train.device), None, []
    work = _reference if name == REFERENCE else _ebmkit
    with cpu_threads(recipe.train.threads):
        try:
            places = work(recipe, folder, device, asked["minutes"], asked["marks"])
        except EbmkitError as failure:
            error = str(failure)
    back = 0 if name == REFERENCE else rollbacks(RunFolder(folder / "run"))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_text(kept, json.dumps({"of": told, "places": places, "error": error, "rollbacks": back}) + "\n")


def _ebmkit(recipe: Recipe, folder: Path, device: str, minutes: float, count: int) -> list[Values]:
    run = RunFolder(folder / "run")
    run.create(recipe.to_toml())
    trainer = Trainer(recipe, run, device, Silent())
    marks = Marks(recipe, folder, Clock(device, trainer.energy.compiling), minutes, count)
    trainer.train(lambda: marks.reached(lambda: trainer.averaged, trainer.step))
    return marks.places


def _reference(recipe: Recipe, folder: Path, device: str, minutes: float, count: int) -> list[Values]:
    torch.manual_seed(recipe.seed)
    reference = build_reference(recipe, device, all_images(recipe.data))
    marks, step = Marks(recipe, folder, Clock(device), minutes, count), 0
    while not marks.reached(lambda: reference.ema, step):
        reference.train_step()
        step += 1
    return marks.places


def measure(folder: Path, asked: Mapping[str, Any]) -> Values:
    """The run that `compete` left, with the metrics of its models, and `norm` and `floor` of its last one."""
    found: Values = json.loads((folder / "places.json").read_text(encoding="utf-8"))
    kept = folder / "measured.json"
    options = {name: asked[name] for name in ("count", "metrics", "extractor")}
    told = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if told.get("options") != json.loads(json.dumps(options)):
        told = {"options": options, "metrics": [], "floor": {}, "norm": None, "error": None}
        try:
            for place in found["places"]:
                last = place is found["places"][-1]
                result = ebmkit.evaluate(model_at(folder, place["mark"]), floor=last, **options)
                told["metrics"].append({key: value for key, value in result.items() if isinstance(value, float)})
                told["floor"] = result.get("floor", {})
            if found["places"]:
                told["norm"] = gradient_norm(model_at(folder, found["places"][-1]["mark"]).parent)
            write_text(kept, json.dumps(told) + "\n")
        except EbmkitError as failure:
            # Samples that are not finite; or a package is missing, so that another call tries again.
            told["error"] = str(failure)
    for place, metrics in zip(found["places"], told["metrics"], strict=False):
        place["metrics"] = metrics
    return {**found, "floor": told["floor"], "norm": told["norm"], "error": found["error"] or told["error"]}


def _unheard(text: str) -> None:
    """Warnings of recipes that are meant as they are."""
