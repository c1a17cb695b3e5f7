"""Which part of the fast path pays: training steps and sweeps with each of them, side by side in one process.

    python benchmarks/parts.py digits --out docs/benchmarks
    python benchmarks/parts.py cifar10_unet --device cuda --compile --json parts.json

Everything off; each part alone; what `train.fast = "auto"` chooses, and that without each of its parts. All take
turns over several rounds. Images are the embedded digits, resized. `--compile` measures compiled code, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pages import markdown, write_measured
from small_runs import EMBEDDED, new_trainer

import ebmkit
from ebmkit.bench.timing import seconds_of
from ebmkit.console import console
from ebmkit.device import cpu_threads
from ebmkit.fast.parts import choose, native_bf16
from ebmkit.model import Model
from ebmkit.options import FastOptions
from ebmkit.overrides import parse
from ebmkit.pipeline import build_energy, build_regularizers
from ebmkit.trainer import Trainer

COMPILED = ("compile", "cuda_graphs")
ONLY_GPU = ("tf32", *COMPILED)


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps in a round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write parts.md and parts.json there")
    arguments = parser.parse_args()
    changes = {**EMBEDDED, **parse(arguments.changes)}
    threads = ebmkit.check(arguments.recipe, changes, warn=lambda message: None).train.threads
    with cpu_threads(threads):
        steps, sweeps = measure(arguments.recipe, changes, arguments)
    text = table_of(steps, sweeps)
    count = threads or torch.get_num_threads()
    where = f"`{arguments.recipe}`, {arguments.device}, {count} threads, {arguments.rounds} rounds"
    text += f"\n\n{where}; ebmkit {ebmkit.__version__}, torch {torch.__version__}."
    console().print(text, markup=False)
    found = {"torch": torch.__version__, "command": sys.argv, "steps": steps, "sweeps": sweeps}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if arguments.out:
        (arguments.out / "parts.json").write_text(json.dumps(found, indent=2) + "\n")
        write_measured(arguments.out / "parts.md", text)


def table_of(steps: dict[str, list[float]], sweeps: dict[str, list[float]]) -> str:
    """The ratios of every variant to "off", as Markdown."""
    rows = [[name, *_ratio(steps, name), *_ratio(sweeps, name)] for name in steps]
    return markdown(["", "training", "lowest", "highest", "sampling", "lowest", "highest"], rows)


def variants(device: str, compiled: bool) -> dict[str, dict[str, Any]]:
    """What is compared, by name."""
    cuda = device.startswith("cuda")
    names = [name for name in FastOptions.model_fields if cuda or name not in ONLY_GPU]
    names = [name for name in names if compiled or name not in COMPILED]
    auto = choose("auto", "auto", FastOptions(), device)
    found: dict[str, dict[str, Any]] = {"off": {"train.fast": "off"}}
    if native_bf16(device):
        found["bf16 alone"] = {"train.fast": "off", "train.precision": "bf16"}
    for name in names:
        if name != "cuda_graphs" and not (name == "winograd" and cuda):
            found[f"{name} alone"] = {"train.fast": "off", f"fast.{name}": "on"}
    found["auto"] = {"train.fast": "auto"}
    if auto.precision == "bf16":
        found["auto without bf16"] = {"train.precision": "float32"}
    for name in names:
        if getattr(auto, name):
            found[f"auto without {name}"] = {f"fast.{name}": "off"}
    if compiled:
        found["auto, compiled"] = {"fast.compile": "on"}
        found["auto, compiled, with CUDA graphs"] = {"fast.compile": "on", "fast.cuda_graphs": "on"}
    return found


def measure(
    recipe: str, changes: dict[str, Any], arguments: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of a training step, and of a sweep, in every round of every variant."""
    device, kinds = arguments.device, variants(arguments.device, arguments.compile)
    with ExitStack() as open_ones:
        trainers = {
            name: open_ones.enter_context(new_trainer(recipe, {**changes, **values}, device))
            for name, values in kinds.items()
        }
        models = {name: _model(trainer, device) for name, trainer in trainers.items()}
        steps: dict[str, list[float]] = {name: [] for name in kinds}
        sweeps: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(-1, arguments.rounds):
            for name, trainer in trainers.items():
                batch = trainer.recipe.train.batch_size
                step, sweep = trainer.train_step, _sweeping(models[name], batch)
                times = seconds_of(step, device, arguments.steps), seconds_of(sweep, device)
                # The first of all is warming up.
                if number >= 0:
                    steps[name].append(times[0])
                    sweeps[name].append(times[1])
    return steps, sweeps


def _model(trainer: Trainer, device: str) -> Model:
    recipe, context = trainer.recipe, trainer.context
    return Model(build_energy(recipe, context, build_regularizers(recipe, context)), recipe, device, {})


def _sweeping(model: Model, batch: int) -> Callable[[], None]:
    def sweep() -> None:
        model.sample(batch, batch_size=batch)

    return sweep


def _ratio(found: dict[str, list[float]], name: str) -> list[str]:
    """How many times as fast as "off": of the medians, and the lowest and highest of a round."""
    rounds = [off / own for off, own in zip(found["off"], found[name], strict=True)]
    return [f"{median(found['off']) / median(found[name]):.2f}", f"{min(rounds):.2f}", f"{max(rounds):.2f}"]


if __name__ == "__main__":
    main()
