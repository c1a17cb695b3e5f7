"""How a metric falls while a run trains: its kept checkpoints, each measured as the finished model is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ebmkit
from ebmkit.files import write_text
from ebmkit.run_folder import RunFolder

Place = dict[str, Any]
"""`step`, `images`, `seconds` of training until then, and `metrics`."""


def course(run: RunFolder, options: Mapping[str, Any], folder: Path, say: Callable[[str], None]) -> list[Place]:
    """A place for each checkpoint that the run still has, measured once and kept in `folder`."""
    rows = {row["step"]: row for row in run.read_metrics()}
    found = []
    for step, _ in sorted(run.complete_checkpoints()):
        kept = folder / f"{run.folder.name}-{step}.json"
        if not kept.is_file():
            say(f"{run.folder.name}: step {step}")
            write_text(kept, json.dumps(_measure(run, step, options, folder)) + "\n")
        row = rows[step]
        metrics = json.loads(kept.read_text(encoding="utf-8"))
        found.append({"step": step, "images": row["images"], "seconds": round(row["seconds"], 1), "metrics": metrics})
    return found


def _measure(run: RunFolder, step: int, options: Mapping[str, Any], folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{run.folder.name}-{step}.safetensors"
    model.unlink(missing_ok=True)
    ebmkit.export(run.folder, model, step)
    try:
        result = ebmkit.evaluate(model, **{key: value for key, value in options.items() if key != "floor"})
    finally:
        model.unlink()
    others = ("samples", "images", "seed")
    return {key: value for key, value in result.items() if isinstance(value, float) and key not in others}
