"""What a run has cost, from its recipe and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ebmkit.reporting.reading import Run


@dataclass(frozen=True)
class Cost:
    """None is what the run folder does not tell."""

    images: int | None
    """Real images seen."""
    images_per_second: float | None
    seconds: float | None
    """Time spent in training steps."""
    peak_memory_mb: float | None
    gradient_evaluations: int | None
    """Gradients of the energy by one image, in the chains of training: steps * batch_size * K."""
    evaluations_per_image: int | None
    """The same for one drawn image: T * K."""


def cost_of(run: Run) -> Cost:
    """The cost of a run up to its last row of metrics."""
    batch, per_chain = _whole(run.table, "train", "batch_size"), _whole(run.table, "sampler", "steps")
    time_steps, images = _whole(run.table, "time_steps"), run.last.get("images")
    rate, seconds = run.last.get("images_per_second"), run.last.get("seconds")
    if seconds is None and images and rate:
        # Runs of before the log had it; exact where a run was never resumed.
        seconds = images / rate
    return Cost(
        images=None if images is None else int(images),
        images_per_second=rate,
        seconds=seconds,
        peak_memory_mb=run.last.get("peak_memory_mb"),
        gradient_evaluations=run.step * batch * per_chain if batch and per_chain else None,
        evaluations_per_image=time_steps * per_chain if time_steps and per_chain else None,
    )


def _whole(table: Mapping[str, Any], *path: str) -> int | None:
    """The whole number at this place of a recipe; None where there is another thing, as in a hand-edited one."""
    value: Any = table
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
