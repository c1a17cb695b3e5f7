"""The figures of an experiment: every run of a sweep, with what it cost and where."""

from __future__ import annotations

import itertools
import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from benchmarks.results.courses import course
from benchmarks.results.processes import in_processes

import ebmkit
from ebmkit.console import console
from ebmkit.drawing.tracing import follow_seed, gradient_norms
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.sweeps.file import Sweep, load_sweep
from ebmkit.sweeps.folder import SweepFolder
from ebmkit.sweeps.plan import plan, value_text
from ebmkit.sweeps.running import Unwatched
from ebmkit.sweeps.table import Row, row_of

Figures = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
COURSE = 4
"""Runs that keep so many checkpoints are measured at each of them."""


def _print(text: str) -> None:
    console(stderr=True).print(text, markup=False)


class Lines(Unwatched):
    """A line for each run that ends."""

    def ended(self, row: Row) -> None:
        """Say how."""
        told = ", ".join(f"{name} {value:.4g}" for name, value in row.metrics.items()) or row.error or ""
        self.say(f"{row.name}: {row.state}; {row.seconds:.0f} s; {told}")


def run(
    source: str, folder: Path, jobs: int, threads: int, changes: Mapping[str, Any], partial: bool = False
) -> tuple[Figures, Mapping[str, Path]]:
    """Train what is not trained yet; the figures, and for each point the folder of its first finished run.

    With `partial` nothing is trained, and the figures are of the runs that have ended.
    """
    view = Lines(_print)
    sweep, sweep_folder = load_sweep(source, changes), SweepFolder(folder)
    runs = {planned.name: planned for planned in plan(sweep)}
    if partial:
        rows = [row_of(sweep_folder, planned) for planned in runs.values()]
    else:
        outcome = ebmkit.sweep(source, folder, jobs, threads, view, changes)
        if outcome.stopped:
            raise SystemExit(outcome.exit_code)
        rows = list(outcome.rows)
    names = {repr(sorted(point.values.items())): point.name for point in sweep.points}
    order = list(dict.fromkeys(_title(row, names) for row in rows))
    rows = [row for row in rows if row.state in ("done", "failed")]
    if not any(_title(row, names) == order[0] for row in rows):
        raise SystemExit(f"{sweep.name}: no run of {order[0]!r} has ended, to which the others are compared")
    rows.sort(key=lambda row: order.index(_title(row, names)))
    points: dict[str, Figures] = {}
    shown: dict[str, Path] = {}
    floor: dict[str, float] = {}
    for row in rows:
        title = _title(row, names)
        point = points.setdefault(title, {"name": title, "values": row.values, "gradients": row.gradients, "runs": []})
        record = sweep_folder.read(row.name)
        floor = floor or ((record.evaluation or {}).get("result", {}).get("floor") or {})
        point["runs"].append(
            {
                "seed": row.seed,
                "state": row.state,
                "error": row.error,
                "metrics": row.metrics,
                "seconds": round(row.seconds, 1),
                "rollbacks": rollbacks(sweep_folder.run(row.name)),
            }
        )
        if row.state == "done":
            shown.setdefault(title, sweep_folder.run(row.name).folder)
    followed = [row for row in rows if row.state == "done" and _keeps(runs[row.name].recipe)]
    wanted = [
        (
            sweep_folder.run(row.name).folder,
            sweep.evaluate,
            folder / "course",
            threads,
            {runs[row.name].recipe.train.steps: row.metrics} if _measured_so(sweep_folder, row, sweep) else {},
        )
        for row in followed
    ]
    for row, places in zip(followed, in_processes(jobs, course, wanted), strict=True):
        view.say(f"{row.name}: {len(places)} checkpoints measured")
        kept = next(run for run in points[_title(row, names)]["runs"] if run["seed"] == row.seed)
        kept["course"] = places
    for title, path in shown.items():
        points[title]["gradient_norm"] = gradient_norm(path)
    recipe = next(iter(runs.values())).recipe
    words = [f"python -m benchmarks.results {named(source, sweep.name)} --jobs {jobs} --threads {threads}"]
    command = " ".join([*words, *map(assignment, changes.items())])
    figures: Figures = {
        "sweep": sweep.name,
        "recipe": sweep.recipe,
        "command": command,
        **place_and_time(jobs),
        "planned": len(runs),
        "steps": recipe.train.steps,
        "batch_size": recipe.train.batch_size,
        "image": list(recipe.data.shape),
        "samples": sweep.evaluate.get("count"),
        "floor": floor,
        "points": list(points.values()),
    }
    return figures, shown


def _measured_so(folder: SweepFolder, row: Row, sweep: Sweep) -> bool:
    """Whether the finished model was measured with the options that the sweep has by now."""
    evaluation = folder.read(row.name).evaluation or {}
    return bool(evaluation.get("options") == json.loads(json.dumps(sweep.evaluate)))


def _keeps(recipe: Recipe) -> bool:
    return recipe.train.keep_checkpoints >= COURSE


def gradient_norm(run: Path) -> dict[str, float]:
    """The energy's gradient norms that a run's chains meet while samples are drawn: mean and largest, of 64 chains."""
    model = ebmkit.load(run / "model.safetensors")
    places = follow_seed(model, 0, range(64))
    # Each place is met at the time step that comes next.
    norms = [gradient_norms(model, place.x, after.t) for place, after in itertools.pairwise(places)]
    return {"mean": float(torch.stack(norms).mean()), "largest": float(torch.stack(norms).max())}


def place_and_time(jobs: int) -> Figures:
    """Where and when, for a reader who compares two pages."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": f"ebmkit {ebmkit.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "machine": f"{_device()}, {jobs} run{'s' if jobs > 1 else ''} at a time",
    }


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"


def _title(row: Row, names: Mapping[str, str | None]) -> str:
    return names[repr(sorted(row.values.items()))] or row.name.rpartition("_seed-")[0] or row.name


def rollbacks(run: RunFolder) -> int:
    """How often the watchdog went back."""
    rows = list(run.read_metrics())
    return int(rows[-1].get("rollbacks", 0)) if rows else 0


def named(source: str, name: str) -> str:
    """A sweep file of the repository by its path, from there; others by their names."""
    path = Path(source).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_file() and path.is_relative_to(ROOT) else name


def assignment(item: tuple[str, Any]) -> str:
    """`--set key=value` for a page."""
    # A path of this machine is nobody else's.
    key, value = item
    return f"--set {key}={'...' if os.sep in str(value) else value_text(value)}"


def write(figures: Figures, path: Path) -> None:
    """Write the figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> Figures:
    """Read figures that `write` wrote."""
    found: Figures = json.loads(path.read_text(encoding="utf-8"))
    return found
