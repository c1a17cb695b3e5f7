"""How much faster several processes train a recipe: images a second against one process, in one call.

    python benchmarks/scaling.py cifar10_unet --gpus 1 2 4 8
    python benchmarks/scaling.py digits --processes 1 2 --fixed-batch --json scaling.json

Each number of processes trains a run of its own in a temporary folder. The rate is that of the second half of the
steps, so that starting does not count. By default the batch grows with the processes, `train.batch_size` images for
each; with --fixed-batch it is that of the whole job.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import ebmkit


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--gpus", type=int, nargs="+", metavar="N")
    kind.add_argument("--processes", type=int, nargs="+", metavar="N")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--fixed-batch", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    arguments = parser.parse_args()
    option, counts = ("--gpus", arguments.gpus) if arguments.gpus else ("--processes", arguments.processes)
    batch = ebmkit.check(arguments.recipe, warn=lambda message: None).train.batch_size
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            size = batch if arguments.fixed_batch else batch * count
            run, launch = Path(folder) / f"{count}", [option, str(count)]
            rate = measure(arguments.recipe, launch, size, arguments.steps, arguments.changes, run)
            rows.append({"processes": count, "batch": size, "images_per_second": rate})
    first = rows[0]["images_per_second"] / rows[0]["processes"]
    for row in rows:
        row["efficiency"] = row["images_per_second"] / (first * row["processes"])
    show(rows, option)
    if arguments.json:
        versions = {"ebmkit": ebmkit.__version__, "torch": torch.__version__, "command": sys.argv}
        arguments.json.write_text(json.dumps({**versions, "rows": rows}, indent=2))


def measure(recipe: str, launch: list[str], batch: int, steps: int, changes: list[str], run: Path) -> float:
    """Images a second of the second half of a run, which is started with the options `launch`."""
    values = [f"train.batch_size={batch}", f"train.steps={steps}", "train.log_every=1", "train.sample_every=0"]
    values += changes
    words = [sys.executable, "-m", "ebmkit", "train", recipe, "--run-dir", str(run), *launch]
    words += [word for value in values for word in ("--set", value)]
    subprocess.run(words, check=True, stdout=sys.stderr)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # The logged rate counts from the beginning.
    half, end = (row["images"] / row["images_per_second"] for row in (rows[steps // 2 - 1], rows[-1]))
    return batch * (steps - steps // 2) / (end - half)


def show(rows: list[dict[str, Any]], option: str) -> None:
    """Print the rows."""
    table = Table(option.removeprefix("--"), "batch", "images/s", "efficiency", box=None, header_style="bold")
    for row in rows:
        cells = f"{row['processes']}", f"{row['batch']}", f"{row['images_per_second']:.1f}", f"{row['efficiency']:.0%}"
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
