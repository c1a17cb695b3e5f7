"""Batch size against throughput and memory, and the largest batch that fits.

    python benchmarks/batches.py cifar10_unet --device cuda --first 64 --last 4096 --json batches.json

Doubles the batch from `--first` to `--last`, or until memory is full, and measures a few training steps of each. Images
are the embedded digits, resized.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from pages import markdown
from small_runs import EMBEDDED, new_trainer

import ebmkit
from ebmkit.bench.memory import PeakMemory
from ebmkit.bench.timing import seconds_of
from ebmkit.console import console
from ebmkit.overrides import parse


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--first", type=int, default=32)
    parser.add_argument("--last", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    batch = arguments.first
    full = None
    while batch <= arguments.last and full is None:
        try:
            rows.append(measure(arguments.recipe, batch, arguments))
        except torch.OutOfMemoryError:
            full = batch
        gc.collect()
        batch *= 2
    cells = [[f"{row['batch']}", f"{row['images_per_second']:.1f}", _gigabytes(row["peak_memory"])] for row in rows]
    end = f"a batch of {full} does not fit" if full else "larger ones were not tried"
    console().print(markdown(["batch", "images/s", "peak GB"], cells) + f"\n\n{end}", markup=False)
    if arguments.json:
        versions = {"torch": torch.__version__, "ebmkit": ebmkit.__version__, "command": sys.argv}
        arguments.json.write_text(json.dumps({**versions, "rows": rows, "full": full}, indent=2) + "\n")


def measure(recipe: str, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Images a second and the peak memory in bytes of a training step."""
    values = {**EMBEDDED, "train.batch_size": batch, "buffer.size": max(10_000, batch), **parse(arguments.changes)}
    device = arguments.device
    with PeakMemory(device) as memory, new_trainer(recipe, values, device) as trainer:
        for _ in range(2):
            trainer.train_step()
        seconds = seconds_of(trainer.train_step, device, arguments.steps)
    return {"batch": batch, "images_per_second": batch / seconds, "peak_memory": memory.rise}


def _gigabytes(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.2f}"


if __name__ == "__main__":
    main()
