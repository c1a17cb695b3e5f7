"""How much of the gain over the reference is TF32: ebmkit, and the reference with and without it.

    python benchmarks/strict.py cifar10_unet --device cuda --set train.fast=max --json strict.json

torch lets cuDNN compute float32 convolutions in TF32 on a GPU, and so does the reference of `ebmkit bench`. Here it
computes in IEEE float32, too. All take turns in one process; on a CPU the two references are the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pages import markdown
from small_runs import EMBEDDED, new_trainer

import ebmkit
from ebmkit.bench.images import made_up
from ebmkit.bench.showing import ratio_text
from ebmkit.bench.timing import Plan, Timing, interleaved, ratio, seconds_of
from ebmkit.bench.yardstick import build_reference, why_none
from ebmkit.console import console
from ebmkit.device import cpu_threads
from ebmkit.model import Model
from ebmkit.overrides import parse
from ebmkit.pipeline import build_energy, build_regularizers
from ebmkit.precision import tf32

OURS, PLAIN, STRICT = "ebmkit", "reference", "reference without TF32"


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=2, help="steps or sweeps in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    arguments = parser.parse_args()
    found = measure(arguments.recipe, {**EMBEDDED, **parse(arguments.changes)}, arguments)
    rows = [
        [work, *(ratio_text(ratio(times[one], times[other])) for one, other in ((OURS, PLAIN), (OURS, STRICT)))]
        for work, times in found.items()
    ]
    console().print(markdown(["ebmkit, times as fast as", PLAIN, STRICT], rows), markup=False)
    if arguments.json:
        versions = {"torch": torch.__version__, "ebmkit": ebmkit.__version__, "command": sys.argv}
        seconds = {work: {name: timing.seconds for name, timing in times.items()} for work, times in found.items()}
        ratios = {
            work: {name: asdict(ratio(times[OURS], times[name])) for name in (PLAIN, STRICT)}
            for work, times in found.items()
        }
        arguments.json.write_text(json.dumps({**versions, "seconds": seconds, "ratios": ratios}, indent=2) + "\n")


def measure(recipe: str, changes: dict[str, Any], arguments: argparse.Namespace) -> dict[str, dict[str, Timing]]:
    """Seconds of a training step and of a sweep in every round of all three."""
    device, plan = arguments.device, Plan(arguments.steps, arguments.rounds)
    bound = ebmkit.check(recipe, changes, warn=lambda message: None)
    missing = why_none(bound)
    if missing is not None:
        raise SystemExit(f"{recipe}: {missing}")
    size = bound.train.batch_size
    with cpu_threads(bound.train.threads), new_trainer(recipe, changes, device) as trainer:
        context = bound.context(device)
        model = Model(build_energy(bound, context, build_regularizers(bound, context)), bound, device, {})
        reference = build_reference(bound, device, made_up(1024, bound.data.shape))
        return {
            "training": timings(trainer.train_step, reference.train_step, device, plan),
            "sampling": timings(
                lambda: model.sample(size, batch_size=size), lambda: reference.sample(size).cpu(), device, plan
            ),
        }


def timings(ours: Callable[[], object], theirs: Callable[[], object], device: str, plan: Plan) -> dict[str, Timing]:
    """The times of `ours`, and of `theirs` under both settings."""

    def within(allowed: bool | None) -> Callable[[], None]:
        def call() -> None:
            with nullcontext() if allowed is None else tf32(device, allowed):
                theirs()

        return call

    calls = {OURS: ours, PLAIN: within(None), STRICT: within(False)}
    first = {name: seconds_of(call, device) for name, call in calls.items()}
    found = interleaved(calls, device, plan)
    return {name: Timing(found[name], first[name], None) for name in calls}


if __name__ == "__main__":
    main()
