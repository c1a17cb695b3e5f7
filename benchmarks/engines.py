"""The two engines side by side in one process: images a second of plain torch and of DeepSpeed's stages, interleaved.

    python benchmarks/engines.py cifar10_unet --set train.precision=bf16
    python benchmarks/engines.py digits --steps 40 --rounds 3 --json engines.json

Each round trains every engine once, in runs of their own in a temporary folder; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from scaling import measure

import ebmkit

ENGINES = {
    "plain": ["engine.use=plain"],
    **{f"deepspeed, stage {n}": ["engine.use=deepspeed", f"engine.zero_stage={n}"] for n in range(3)},
}


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    arguments = parser.parse_args()
    batch = ebmkit.check(arguments.recipe, warn=lambda message: None).train.batch_size
    rates: dict[str, list[float]] = {name: [] for name in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name, values in ENGINES.items():
                run = Path(folder) / f"{number}-{name}"
                rates[name].append(
                    measure(arguments.recipe, [], batch, arguments.steps, values + arguments.changes, run)
                )
    table = Table("engine", "images/s", "lowest", "highest", "to plain", box=None, header_style="bold")
    for name, found in rates.items():
        ratio = median(found) / median(rates["plain"])
        table.add_row(name, f"{median(found):.1f}", f"{min(found):.1f}", f"{max(found):.1f}", f"{ratio:.2f}")
    Console().print(table)
    if arguments.json:
        versions = {"ebmkit": ebmkit.__version__, "torch": torch.__version__, "command": sys.argv}
        arguments.json.write_text(json.dumps({**versions, "images_per_second": rates}, indent=2))


if __name__ == "__main__":
    main()
