"""What a sweep found: a row for each run, the means over seeds, as rich, CSV and Markdown tables."""

from __future__ import annotations

import csv
import io
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ebmkit.sweeps.folder import SweepFolder
from ebmkit.sweeps.plan import PlannedRun, short_keys, value_text


@dataclass(frozen=True)
class Row:
    """One run: its values, how it stands, metrics and cost."""

    name: str
    values: dict[str, Any]
    seed: int
    state: str
    """"done", "failed", "stopped" after some steps, or "waiting"."""
    error: str | None
    metrics: dict[str, float]
    step: int
    seconds: float
    """Wall time of training, of all attempts."""
    images_per_second: float | None
    gradients: int | None
    """Gradient evaluations for an image, T*K."""


def row_of(folder: SweepFolder, run: PlannedRun) -> Row:
    """How a run stands, from its folder and its record."""
    record = folder.read(run.name)
    last = next(iter(deque(folder.run(run.name).read_metrics(), maxlen=1)), {})
    trained = folder.trained(run)
    state = "waiting"
    if record.error is not None:
        state = "failed"
    elif trained and record.evaluation is not None:
        state = "done"
    elif record.attempts:
        state = "stopped"
    return Row(
        run.name,
        dict(run.values),
        run.seed,
        state,
        record.error,
        record.metrics if state == "done" else {},
        int(last.get("step", 0)),
        record.seconds,
        last.get("images_per_second"),
        run.gradients,
    )


def table_of(rows: Sequence[Row], precise: bool = False) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, one row for each run; `precise` has all digits and the reasons of failures."""
    labels = short_keys({key for row in rows for key in row.values})
    keys = list(dict.fromkeys(key for row in rows for key in row.values))
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    named = not keys or any(set(keys) != row.values.keys() for row in rows)
    head = (["run"] if named or precise else []) + [key if precise else labels[key] for key in keys]
    head += ["seed", "state", *metrics, "step", "seconds", "images/s", "T*K"] + (["error"] if precise else [])
    cells = []
    for row in rows:
        line = [row.name] if named or precise else []
        line += [value_text(row.values[key]) if key in row.values else "" for key in keys]
        line += [str(row.seed), row.state]
        line += [_number(row.metrics.get(name), precise, 4) for name in metrics]
        line += [str(row.step), f"{row.seconds:.0f}", _number(row.images_per_second, precise, 4)]
        line += ["" if row.gradients is None else str(row.gradients)]
        cells.append(line + ([row.error or ""] if precise else []))
    return head, cells


def means_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]] | None:
    """The mean of each metric over the seeds of a point, with the standard deviation; None where no point has two."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(repr(sorted(row.values.items())), []).append(row)
    if all(len(group) == 1 for group in groups.values()):
        return None
    labels = short_keys({key for row in rows for key in row.values})
    keys = list(dict.fromkeys(key for row in rows for key in row.values))
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    cells = []
    for group in groups.values():
        done = [row for row in group if row.state == "done"]
        line = [value_text(group[0].values[key]) if key in group[0].values else "" for key in keys]
        line.append(str(len(done)) if len(done) == len(group) else f"{len(done)} of {len(group)}")
        for name in metrics:
            values = [row.metrics[name] for row in done if name in row.metrics]
            spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
            line.append(f"{statistics.mean(values):.4g}{spread}" if values else "")
        cells.append(line)
    return [*(labels[key] for key in keys), "seeds", *metrics], cells


def failures(rows: Sequence[Row]) -> list[str]:
    """A sentence for each run that failed."""
    return [f"{row.name} failed: {row.error}" for row in rows if row.state == "failed"]


def markdown(rows: Sequence[Row]) -> str:
    """All of it in Markdown."""
    parts = [_markdown(*table_of(rows))]
    means = means_of(rows)
    if means is not None:
        parts.append("Mean and standard deviation over the seeds:\n\n" + _markdown(*means))
    parts += [f"- {sentence}" for sentence in failures(rows)]
    return "\n\n".join(parts) + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    """One line for each run, with all digits."""
    target = io.StringIO()
    head, cells = table_of(rows, precise=True)
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(cells)
    return target.getvalue()


def _markdown(head: list[str], cells: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def _number(value: float | None, precise: bool, digits: int) -> str:
    if value is None:
        return ""
    return repr(value) if precise else f"{value:.{digits}g}"
