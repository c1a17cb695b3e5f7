"""What a run folder remembers that a model card tells: its evaluations and what training took."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ebmkit.run_folder import RunFolder

EVALUATIONS = "evaluations.jsonl"


def evaluations_of(run: RunFolder, step: int) -> list[dict[str, Any]]:
    """The evaluations of the model of this `step` that can be read, oldest first."""
    rows = _rows(run)
    return [row for row in rows if row.get("step") == step and isinstance(row.get("metrics"), Mapping)]


def _rows(run: RunFolder) -> Iterator[dict[str, Any]]:
    path = run.folder / EVALUATIONS
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            # A line that is being written, or was cut off.
            continue
        if isinstance(row, dict):
            yield row


def training_seconds(run: RunFolder, step: int) -> float | None:
    """Seconds that the steps up to `step` took by the rates in metrics.jsonl; None where it has none."""
    seconds, images = 0.0, 0.0
    for row in run.read_metrics():
        if row.get("step", step + 1) > step:
            break
        seen, rate = row.get("images", images), row.get("images_per_second")
        if rate:
            seconds += (seen - images) / rate
            images = seen
    return seconds or None
