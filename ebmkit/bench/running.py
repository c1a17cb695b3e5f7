"""One run of `ebmkit bench`: what is measured, in which order, and the report of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ebmkit import recipe as recipes
from ebmkit.bench.images import with_images
from ebmkit.bench.loading import LoadingReport, measure_loading
from ebmkit.bench.machine import ceilings, describe_machine
from ebmkit.bench.sampling import SamplingReport, measure_sampling
from ebmkit.bench.timing import Plan
from ebmkit.bench.training import Progress, TrainingReport, measure_training
from ebmkit.bench.yardstick import why_none
from ebmkit.device import choose_device, cpu_threads
from ebmkit.pipeline import cross_check

SLOW = 10.0
"""Seconds of a step or sweep from which on a smaller batch is recommended."""


@dataclass(frozen=True)
class Report:
    """Everything that was measured, and on what. `no_reference` says why no ratio is given."""

    recipe: str
    changes: dict[str, Any]
    machine: dict[str, str | int]
    ceilings: dict[str, float]
    made_up_images: bool
    no_reference: str | None
    training: TrainingReport | None
    sampling: SamplingReport | None
    data: dict[str, LoadingReport] | None
    date: str
    command: list[str]

    def to_table(self) -> dict[str, Any]:
        """All of it as plain values, in seconds, bytes, FLOP/s and B/s, with the rates that follow."""
        table = asdict(self)
        for name in ("training", "sampling"):
            part: TrainingReport | SamplingReport | None = getattr(self, name)
            if part is None:
                continue
            for key in ("ebmkit", "reference"):
                timing = getattr(part, key)
                if timing is not None:
                    table[name][key] |= {"median": timing.median, "images_per_second": part.batch_size / timing.median}
            if part.cost is not None:
                table[name]["cost"] = part.cost._asdict()
                table[name]["rates"] = rates(part, self.ceilings)
        return table


def rates(part: TrainingReport | SamplingReport, limits: Mapping[str, float]) -> dict[str, float]:
    """What ebmkit's steps achieve: FLOP/s and B/s of the reference's work, and their shares of the machine's limits."""
    assert part.cost is not None
    flops, traffic = part.cost.flops / part.ebmkit.median, part.cost.bytes / part.ebmkit.median
    shares = {
        f"share_of_{name}": (traffic if name == "copy" else flops) / limit for name, limit in limits.items() if limit
    }
    return {"flops_per_second": flops, "bytes_per_second": traffic, **shares}


def run_bench(
    source: str,
    changes: Mapping[str, Any],
    parts: frozenset[str],
    plan: Plan,
    say: Callable[[str], None],
    progress: Progress,
) -> Report:
    """Measure the `parts` of a recipe, of "training", "sampling" and "data"; raises `EbmkitError`s.

    Nothing is left behind: the run that is measured lies in a temporary folder.
    """
    recipe = recipes.load(source, changes)
    for warning in cross_check(recipe, source):
        say(f"warning: {warning}")
    device = choose_device(recipe.train.device)
    missing = why_none(recipe)
    compare = missing is None
    training = sampling = data = None
    devices = [device] if device.startswith("cuda") else []
    with TemporaryDirectory(prefix="ebmkit-bench-") as name, cpu_threads(recipe.train.threads):
        folder, made_up = Path(name), False
        if parts - {"sampling"}:
            recipe, made_up = with_images(recipe, folder / "shards", say)
        with torch.random.fork_rng(devices):
            progress("the machine's limits", 0, 1)
            limits, machine = ceilings(device), describe_machine(device)
            if "training" in parts:
                training = measure_training(recipe, device, folder / "training", plan, compare, progress)
            if "sampling" in parts:
                sampling = measure_sampling(recipe, device, plan, compare, progress)
            if "data" in parts:
                data = measure_loading(recipe, device, folder / "data", plan, progress)
            # Before and after: the machine may have had other work at one of the two.
            limits = {kind: max(limit, limits[kind]) for kind, limit in ceilings(device).items()}
    for part in (training, sampling):
        if part is not None and part.ebmkit.median > SLOW:
            say(f"a step of {part.batch_size} images takes {part.ebmkit.median:.0f} s here: try a smaller --batch-size")
    if training is not None and not training.finite:
        say("warning: the loss is not finite any more; times of such numbers may mislead")
    return Report(
        recipe=recipe.name,
        changes=dict(changes),
        machine=machine,
        ceilings=limits,
        made_up_images=made_up,
        no_reference=missing,
        training=training,
        sampling=sampling,
        data=data,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=["ebmkit", *sys.argv[1:]],
    )
