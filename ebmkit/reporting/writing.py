"""Writing a report to a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ebmkit.errors import BadInput
from ebmkit.files import write_text
from ebmkit.reporting.page import MARK, render
from ebmkit.reporting.reading import read_runs

MAX_MB = 20
"""Megabytes that a report takes at most, unless told otherwise."""


@dataclass(frozen=True)
class Report:
    """The file, and a sentence on its size and on what was left out to keep it."""

    path: Path
    summary: str


def write_report(runs: Sequence[str | Path], out: str | Path, max_mb: int = MAX_MB) -> Report:
    """Write the report of one or several run folders; a report that is there is made anew.

    Raises `BadInput` for what is no run folder, where `out` is a file of another kind, and where it cannot be written.
    """
    path = Path(out)
    _require_ours(path)
    page = render(read_runs(runs), max_mb * 1_000_000)
    try:
        write_text(path, page.html)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
    return Report(path, page.summary)


def _require_ours(path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise BadInput(f"{path}: there is no folder {path.parent}")
    if not path.exists() and not path.is_symlink():
        return
    mark = MARK.encode()
    try:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(mark)) == mark:
                    return
    except OSError:
        # What cannot be read is not known as ours.
        pass
    raise BadInput(f"{path}: already exists and is no report of ebmkit, so it is not overwritten; choose another --out")
