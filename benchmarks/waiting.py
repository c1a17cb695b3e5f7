"""How long a training step waits for its images: streamed from shards by 0, 1 and 2 workers, beside the cached set.

    python benchmarks/waiting.py 'shards/cifar10/train-{000000..000004}.tar' --set energy.channels=32
    python benchmarks/waiting.py 'shards/cifar10/train-*.tar' --workers 0 1 2 4 --json waiting.json

Each round makes a trainer for every source, in turn, and times its steps after some to warm up. "alone" is what the
source gives to one who does nothing else. On a GPU the host runs ahead, so that time in which it waits for images need
not be lost: "waiting" is an upper bound there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import ebmkit
from ebmkit import overrides
from ebmkit.console import Silent
from ebmkit.device import choose_device
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.trainer import Trainer

WARM_UP = 3


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="the images of the recipe's size and channels")
    parser.add_argument("--recipe", default="cifar10_unet")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    arguments = parser.parse_args()
    sources = {"cached": {"data.cache": "device"}}
    sources |= {f"{n} workers": {"data.cache": "off", "data.workers": n} for n in arguments.workers}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name, values in sources.items():
                changes = {**overrides.parse(arguments.changes), "data.shards": arguments.shards, **values}
                recipe = ebmkit.check(arguments.recipe, changes, warn=lambda message: None)
                device = choose_device(recipe.train.device)
                found[name].append(measure(recipe, device, arguments.steps, Path(folder) / f"{number}-{name}"))
    table = Table("source", "alone, images/s", "step, ms", "waiting, ms", "share", "lowest", "highest", box=None)
    for name, rows in found.items():
        middle = {key: median(row[key] for row in rows) for key in rows[0]}
        shares = [row["share"] for row in rows]
        table.add_row(
            name,
            f"{middle['alone']:,.0f}",
            f"{1000 * middle['step']:.1f}",
            f"{1000 * middle['waiting']:.2f}",
            *(f"{share:.2%}" for share in (middle["share"], min(shares), max(shares))),
        )
    Console().print(table)
    if arguments.json:
        versions = {"ebmkit": ebmkit.__version__, "torch": torch.__version__, "command": sys.argv}
        arguments.json.write_text(json.dumps({**versions, "sources": found}, indent=2))


def measure(recipe: Recipe, device: str, steps: int, folder: Path) -> dict[str, float]:
    """Seconds of a training step, those in which it waits for images, and images a second of the source alone."""
    run = RunFolder(folder)
    run.create(recipe.to_toml())
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    trainer = Trainer(recipe, run, device, Silent())
    original, waited = trainer.data.next, 0.0

    def timed() -> Any:
        nonlocal waited
        begin = time.perf_counter()
        batch = original()
        waited += time.perf_counter() - begin
        return batch

    trainer.data.next = timed  # type: ignore[method-assign]
    try:
        trainer.model.train()
        for _ in range(WARM_UP):
            trainer.train_step()
        finish(device)
        waited, begin = 0.0, time.perf_counter()
        for _ in range(steps):
            trainer.train_step()
        finish(device)
        step, waiting = (time.perf_counter() - begin) / steps, waited / steps
        # What the workers had decoded while they were not asked does not count.
        for _ in range(WARM_UP + 2 * recipe.data.workers):
            original()
        begin = time.perf_counter()
        for _ in range(steps):
            original()
        finish(device)
        alone = steps * recipe.train.batch_size / (time.perf_counter() - begin)
    finally:
        trainer.data.close()
    return {"alone": alone, "step": step, "waiting": waiting, "share": waiting / step}


def finish(device: str) -> None:
    """Wait for what the device was told to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
