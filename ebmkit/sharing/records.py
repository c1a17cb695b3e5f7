"""What a run folder remembers that a model card tells: its evaluations and what training took."""

from __future__ import annotations

from typing import Any

from ebmkit.metering import SECONDS
from ebmkit.run_folder import RunFolder


def evaluations_of(run: RunFolder, step: int) -> list[dict[str, Any]]:
    """The evaluations of the model of this `step` as it is, oldest first; with another sampler they are not its own."""
    rows = run.read_evaluations()
    rows = (row for row in rows if row.get("step") == step and not row.get("overrides"))
    return [row for row in rows if isinstance(row.get("metrics"), dict)]


def training_seconds(run: RunFolder, step: int) -> float | None:
    """Seconds that the steps up to `step` took; None where metrics.jsonl does not tell."""
    return max((row[SECONDS] for row in run.read_metrics() if row["step"] <= step and SECONDS in row), default=None)
