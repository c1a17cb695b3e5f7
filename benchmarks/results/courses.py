"""How a metric falls while a run trains: its kept checkpoints, each measured as the finished model is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import ebmkit
from ebmkit.allocator import keep_freed_memory
from ebmkit.errors import BadInput
from ebmkit.files import write_text
from ebmkit.run_folder import RunFolder

Place = dict[str, Any]
"""`step`, `images`, `seconds` of training until then, and `metrics`."""


MEASURED = frozenset({"count", "seed", "data", "extractor", "batch_size", "weights"})
"""Options of `[evaluate]` that `ebmkit.evaluate` has by the same name, beside `floor` and `metrics`."""


def course(
    path: Path, options: Mapping[str, Any], folder: Path, threads: int, finished: Mapping[int, Mapping[str, float]]
) -> list[Place]:
    """A place for each checkpoint that the run at `path` still has, measured with `options` and kept in `folder`.

    `finished` are metrics by steps that are known: those of the finished model.
    """
    # This process measures and does nothing else, as the command does.
    keep_freed_memory()
    torch.set_num_threads(threads)
    run = RunFolder(path)
    rows = list(run.read_metrics())
    found = []
    for step, checkpoint in sorted(run.complete_checkpoints()):
        kept = folder / f"{run.folder.name}-{step}.json"
        told = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        # Of a run that was trained anew under its name nothing is kept.
        key = json.loads(json.dumps({"options": options, "written": checkpoint.stat().st_mtime}))
        if step in finished:
            told = {"metrics": dict(finished[step])}
        elif {name: told.get(name) for name in key} != key:
            told = {**key, "metrics": _measure(run, step, options, folder)}
            write_text(kept, json.dumps(told) + "\n")
        # The last line until then: not every step has one.
        row = next((row for row in reversed(rows) if row["step"] <= step), {"images": 0, "seconds": 0.0})
        place = {"step": step, "images": row["images"], "seconds": round(row["seconds"], 1)}
        found.append(place | {"metrics": told["metrics"]})
    return found


def _measure(run: RunFolder, step: int, options: Mapping[str, Any], folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{run.folder.name}-{step}.safetensors"
    model.unlink(missing_ok=True)
    ebmkit.export(run.folder, model, step)
    wanted = {key: value for key, value in options.items() if key not in ("floor", "metrics")}
    if strange := wanted.keys() - MEASURED:
        raise BadInput(f"evaluate.{min(strange)}: a run cannot be followed with this option of `ebmkit evaluate`")
    metrics = options.get("metrics", ())
    names = metrics.split(",") if isinstance(metrics, str) else metrics
    try:
        result = ebmkit.evaluate(model, metrics=names, **wanted)
    finally:
        model.unlink()
    return {key: value for key, value in result.items() if isinstance(value, float)}
