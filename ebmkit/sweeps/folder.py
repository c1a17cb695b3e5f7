"""The folder of a sweep: a run folder for each run, and beside them recipes, results and logs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ebmkit import recipe as recipes
from ebmkit.errors import BadInput
from ebmkit.files import write_text
from ebmkit.resuming import flat
from ebmkit.run_folder import RunFolder
from ebmkit.sweeps.file import Sweep
from ebmkit.sweeps.plan import PlannedRun


@dataclass
class Record:
    """What a sweep keeps of one run: when it trained, why it failed, and its evaluation."""

    attempts: list[dict[str, float]] = field(default_factory=list)
    """`started`, seconds since 1970, and `seconds`, which a killed sweep could not write."""
    error: str | None = None
    evaluation: dict[str, Any] | None = None
    """`options` and `result`, the numbers that `ebmkit evaluate` gave with them."""

    @property
    def seconds(self) -> float:
        """Wall seconds of training, over all attempts."""
        return sum(attempt.get("seconds", 0.0) for attempt in self.attempts)

    @property
    def metrics(self) -> dict[str, float]:
        """The evaluation's metrics by name."""
        result = (self.evaluation or {}).get("result", {})
        found = result.get("metrics", {k: v for k, v in result.items() if k not in ("samples", "images", "seed")})
        return {key: value for key, value in found.items() if isinstance(value, int | float)}


class SweepFolder:
    """The paths of a sweep and its records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marker = folder / "sweep.json"
        self.recipes = folder / "recipes"
        self.results = folder / "results"
        self.logs = folder / "logs"

    def run(self, name: str) -> RunFolder:
        """The run folder of this name."""
        return RunFolder(self.folder / name)

    def recipe(self, name: str) -> Path:
        """The whole recipe of a run, which `ebmkit train` takes."""
        return self.recipes / f"{name}.toml"

    def log(self, name: str) -> Path:
        """What a run's commands said."""
        return self.logs / f"{name}.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the sweep for this process; raises `BadInput` while another one works in it."""
        try:
            with RunFolder(self.folder).locked():
                yield
        except BadInput as error:
            if "another process is training" not in str(error):
                raise
            raise BadInput(f"{self.folder}: another sweep is working in this folder") from error

    def refuse_others(self, sweep: Sweep, runs: Sequence[PlannedRun]) -> list[str]:
        """Raise `BadInput` where the folder holds anything but this sweep's runs; the names of runs that left it."""
        if not self.marker.is_file():
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise BadInput(f"{self.folder}: is not empty and no sweep's folder; choose another by --out-dir")
            return []
        other = _read_json(self.marker).get("sweep")
        if other != sweep.name:
            raise BadInput(f"{self.folder}: holds the sweep '{other}', not '{sweep.name}'; choose another --out-dir")
        for run in runs:
            if not self.recipe(run.name).is_file():
                continue
            kept = recipes.load(self.recipe(run.name)).to_table()
            before, now = flat(kept), flat(run.recipe.to_table())
            different = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            if different:
                raise BadInput(
                    f"{self.folder / run.name}: was trained with another recipe (it differs in "
                    f"{', '.join(different[:6])}), and runs of two kinds are not mixed; choose another --out-dir"
                )
        names = {run.name for run in runs}
        left = sorted(path.stem for path in self.recipes.glob("*.toml") if path.stem not in names)
        return [name for name in left if self.run(name).folder.is_dir()]

    def prepare(self, sweep: Sweep, runs: Sequence[PlannedRun]) -> None:
        """Write the recipe of each run that has none yet."""
        try:
            for folder in (self.recipes, self.results, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            for run in runs:
                if not self.recipe(run.name).is_file():
                    write_text(self.recipe(run.name), run.recipe.to_toml())
            write_text(self.marker, json.dumps({"sweep": sweep.name, "recipe": sweep.recipe}) + "\n")
        except OSError as error:
            raise BadInput(f"{self.folder}: cannot be written: {error.strerror}") from error

    def read(self, name: str) -> Record:
        """The record of a run; an empty one where nothing was tried yet."""
        path = self.results / f"{name}.json"
        try:
            return Record(**_read_json(path)) if path.is_file() else Record()
        except TypeError as error:
            raise BadInput(f"{path}: is no record of a sweep") from error

    def write(self, name: str, record: Record) -> None:
        """Keep the record of a run."""
        write_text(self.results / f"{name}.json", json.dumps(asdict(record), indent=1) + "\n")

    def begin_attempt(self, name: str) -> Record:
        """Note that a run begins or goes on; an attempt that was killed counts up to its last sign of life."""
        record, run = self.read(name), self.run(name)
        for attempt in record.attempts:
            if "seconds" not in attempt:
                last = run.metrics.stat().st_mtime if run.metrics.is_file() else attempt["started"]
                attempt["seconds"] = max(0.0, last - attempt["started"])
        record.attempts.append({"started": time.time()})
        record.error = None
        self.write(name, record)
        return record

    def trained(self, run: PlannedRun) -> bool:
        """Whether the run has come to its last step."""
        folder = self.run(run.name)
        done = max((step for step, _ in folder.complete_checkpoints()), default=0)
        return done >= run.recipe.train.steps and folder.model.is_file()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a table")
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
    return found
