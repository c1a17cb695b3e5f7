"""Whether the fast path costs quality: a recipe trained with and without it, over several seeds.

    python benchmarks/quality.py digits --seeds 0 1 2 --out docs/benchmarks
    python benchmarks/quality.py cifar10_unet --seeds 0 1 2 --set train.steps=5000 --json quality.json

Every run is a run of its own in a temporary folder, of the same seed with each of the values of `train.fast`; measured
is the pixel-space Fréchet distance of as many samples as there are in `--count`, drawn as the model was trained.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from pages import markdown, write_measured
from rich.console import Console

import ebmkit
from ebmkit.console import console
from ebmkit.overrides import parse

MODES = ("auto", "off")


def main() -> None:
    """Read the command line, train, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=512, help="samples to draw from each model")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write quality.md and quality.json there")
    arguments = parser.parse_args()
    changes = parse(arguments.changes)
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for mode in MODES:
            row = {"seed": seed, "fast": mode, **measure(arguments.recipe, seed, mode, changes, arguments.count)}
            Console(stderr=True).print(row)
            rows.append(row)
    found = {"recipe": arguments.recipe, "torch": torch.__version__, "command": sys.argv, "rows": rows}
    versions = f"ebmkit {ebmkit.__version__}, torch {torch.__version__}"
    text = f"{table(rows)}\n\n`{arguments.recipe}`, {arguments.count} samples of each model; {versions}."
    console().print(text, markup=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if arguments.out:
        (arguments.out / "quality.json").write_text(json.dumps(found, indent=2) + "\n")
        write_measured(arguments.out / "quality.md", text)


def measure(recipe: str, seed: int, mode: str, changes: dict[str, Any], count: int) -> dict[str, float]:
    """Train once; the distance of its samples, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        values = {"seed": seed, "train.fast": mode, "train.sample_every": 0, **changes}
        begin = time.perf_counter()
        outcome = ebmkit.train(recipe, values, Path(folder) / "run")
        seconds = time.perf_counter() - begin
        found = ebmkit.evaluate(outcome.model, count=count)
    return {"distance": found["pixel_frechet_distance"], "seconds": seconds}


def table(rows: list[dict[str, Any]]) -> str:
    """The distances as a Markdown table, with the mean of each mode and its standard deviation over the seeds."""
    by_mode = {mode: {row["seed"]: row["distance"] for row in rows if row["fast"] == mode} for mode in MODES}
    lines = [[f"{seed}", *(f"{by_mode[mode][seed]:.3f}" for mode in MODES)] for seed in by_mode[MODES[0]]]
    spread = [(mean(found.values()), stdev(found.values()) if len(found) > 1 else 0) for found in by_mode.values()]
    lines.append(["mean", *(f"{middle:.3f} ± {width:.3f}" for middle, width in spread)])
    return markdown(["seed", *(f"fast = {mode}" for mode in MODES)], lines)


if __name__ == "__main__":
    main()
