"""Which curves a report shows, in which order, and the data that the page draws them from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ebmkit.reporting import words
from ebmkit.reporting.reading import Run
from ebmkit.watchdog.journal import COUNTED

POINTS = 2000
"""Points of a curve at most."""
BYTES_OF_POINT = 22
"""What a point takes in the page: a step and six digits."""
ENERGIES = ("energy_data", "energy_samples")
FIRST = ("loss", *ENERGIES, "gradient_norm")
STEADY = ("learning_rate", "images_per_second", "peak_memory_mb", "skipped_images", *COUNTED)
LAST = ("contrastive_divergence", *STEADY)


def charts(runs: Sequence[Run], budget: int) -> list[dict[str, Any]]:
    """One entry for each chart: `name`, `title`, `note`, `smooth` and its `lines`; all of them in `budget` bytes."""
    found = [name for run in runs for name, values in run.curves.values.items() if not _is_dull(name, values)]
    names = _ordered(list(dict.fromkeys(found)))
    lines = sum(name in run.curves.values for name in names for run in runs)
    points = min(POINTS, budget // (BYTES_OF_POINT * max(lines, 1)))
    # The two energies mean most beside each other.
    together = set(ENERGIES) <= set(names)
    entries = []
    for name in names:
        if together and name == ENERGIES[1]:
            continue
        parts = ENERGIES if together and name == ENERGIES[0] else (name,)
        entries.append(
            {
                "name": name,
                "title": "Energy of data and samples" if len(parts) > 1 else words.curve(name),
                # What does not fluctuate would only lag behind.
                "smooth": name not in STEADY,
                "note": "solid: real images, dashed: samples" if len(parts) > 1 else "",
                "lines": [line for part in parts for line in _lines(runs, part, len(parts) > 1, points)],
            }
        )
    return entries


def _lines(runs: Sequence[Run], name: str, named: bool, points: int) -> list[dict[str, Any]]:
    lines = []
    for number, run in enumerate(runs):
        if name in run.curves.values:
            steps, values = run.curves.thinned(name, max(points, 4))
            label = f"{run.label}, {name.removeprefix('energy_')}" if named else run.label
            dashed = name == ENERGIES[1] and named
            lines.append({"run": number, "label": label, "dashed": dashed, "steps": steps, "values": values})
    return lines


def _ordered(names: list[str]) -> list[str]:
    between = [name for name in names if name not in FIRST and name not in LAST]
    return [*(name for name in FIRST if name in names), *between, *(name for name in LAST if name in names)]


def _is_dull(name: str, values: Sequence[float]) -> bool:
    return name in ("skipped_images", *COUNTED) and not any(value > 0 for value in values)
