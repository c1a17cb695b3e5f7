"""Seconds for many images, as `ebmkit sample` draws them, and the seconds of compiling beside them.

    python benchmarks/drawing.py cifar10_unet --count 50000 --batch-size 1000 --device cuda --fast max --json 32.json

The weights are new: they change nothing about the time. A second call finds what the first one compiled in its cache.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

import ebmkit
from ebmkit.bench.timing import wait_for
from ebmkit.console import console
from ebmkit.model import Model
from ebmkit.overrides import parse
from ebmkit.pipeline import build_energy, build_regularizers


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fast", default="auto", choices=("auto", "off", "max"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    arguments = parser.parse_args()
    recipe = ebmkit.check(arguments.recipe, parse(arguments.changes), warn=lambda message: None)
    context = recipe.context(arguments.device)
    energy = build_energy(recipe, context, build_regularizers(recipe, context))
    model = Model(energy, recipe, arguments.device, {}, fast=arguments.fast, say=Console(stderr=True).print)
    # One batch first: what is compiled is compiled for its size.
    begin = time.perf_counter()
    model.sample(arguments.batch_size, batch_size=arguments.batch_size)
    wait_for(arguments.device)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in model.sample_batches(arguments.count, batch_size=arguments.batch_size):
        pass
    wait_for(arguments.device)
    seconds = time.perf_counter() - begin
    rate = arguments.count / seconds
    starting = first - arguments.batch_size / rate
    text = f"{arguments.count} images of {recipe.data.shape} in {seconds:.1f} s, {rate:.1f} images/s"
    console().print(f"{text}; starting {starting:.1f} s", markup=False)
    if arguments.json:
        found = {"count": arguments.count, "seconds": seconds, "starting": starting, "fast": str(model.parts)}
        versions = {"torch": torch.__version__, "ebmkit": ebmkit.__version__, "command": sys.argv}
        arguments.json.write_text(json.dumps({**versions, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
