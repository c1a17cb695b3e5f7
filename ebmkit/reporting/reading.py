"""What a report shows of a run folder, read without torch and without trusting what stands in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ebmkit.errors import BadInput
from ebmkit.json_lines import read_lines
from ebmkit.recipe import read_toml
from ebmkit.reporting.curves import Curves
from ebmkit.run_folder import RunFolder
from ebmkit.watchdog.journal import read_journal

MAX_HEADER = 16_000_000
"""Bytes of a model file's header that are read at most."""
PLOTS = "plots"


@dataclass(frozen=True)
class Run:
    """A run as it stands: the resolved recipe, all metrics, where its pictures lie, and what its model file says."""

    label: str
    folder: Path
    table: Mapping[str, Any]
    toml: str
    curves: Curves
    last: Mapping[str, float]
    """The newest value of each metric."""
    written: datetime | None
    """When metrics were written last."""
    samples: Sequence[tuple[int, Path]]
    plots: Sequence[tuple[str, Path]]
    evaluations: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    """What the watchdog did."""
    model: Mapping[str, str]

    @property
    def step(self) -> int:
        """The last step with metrics; 0 before the first."""
        return int(self.last.get("step", 0))


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Every run of `folders`, each folder once; raises `BadInput` for one that is no run folder."""
    unique = list(dict.fromkeys(Path(folder).absolute() for folder in folders))
    return [_read(folder, label) for folder, label in zip(unique, _labels(unique), strict=True)]


def _labels(folders: Sequence[Path]) -> list[str]:
    """Of each path as much of the end as tells it from the others."""
    for count in range(1, max(len(folder.parts) for folder in folders)):
        labels = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]


def _read(folder: Path, label: str) -> Run:
    run = RunFolder(folder)
    if not run.recipe.is_file():
        raise BadInput(f"{folder}: no run here (no recipe.toml); a run folder is what `ebmkit train` writes")
    table = read_toml(run.recipe)
    curves, last = Curves(), dict[str, float]()
    for row in read_lines(run.metrics):
        last |= curves.add(row)
    return Run(
        label=label,
        folder=folder,
        table=table,
        toml=run.recipe.read_text(encoding="utf-8"),
        curves=curves,
        last=last,
        written=datetime.fromtimestamp(run.metrics.stat().st_mtime, UTC) if last else None,
        samples=sorted(_samples(run.samples)),
        plots=sorted((path.stem, path) for path in _files(folder / PLOTS) if path.suffix in (".png", ".gif")),
        evaluations=list(read_lines(run.evaluations)),
        events=read_journal(folder),
        model=read_header(run.model),
    )


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty where there is no complete one."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= MAX_HEADER else {}
    except (OSError, ValueError, RecursionError):
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def _samples(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in _files(folder):
        number = path.stem.removeprefix("step-")
        if path.suffix == ".png" and number.isascii() and number.isdigit() and len(number) < 16:
            yield int(number), path


def _files(folder: Path) -> list[Path]:
    # No hidden ones: those are still being written.
    return [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."] if folder.is_dir() else []
