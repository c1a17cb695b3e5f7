"""A CSV file to which rows are appended."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ebmkit.errors import BadInput

ORDER = "step"
"""The column that says where in a run a row belongs."""


class Table:
    """A CSV file whose header names its columns, one of them `step`; every row is one line.

    Appending writes that line alone. The file is written anew only where it gets another column or loses rows, and then
    so that a crash at any moment leaves the old one or the whole new one.
    """

    def __init__(self, path: Path, up_to: float = math.inf) -> None:
        """Open it, without the rows of steps after `up_to`, and without the half line that a kill may have left."""
        self.path = path
        self.columns, rows, torn = self._read()
        kept = [row for row in rows if self._step(row) <= up_to]
        if torn or len(kept) < len(rows):
            self._replace(self.columns, kept)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; what no row had before becomes a new last column."""
        columns = [*self.columns, *(name for name in row if name not in self.columns)]
        cells = [_cell(row.get(name)) for name in columns]
        if columns != self.columns or not self.path.exists():
            self._replace(columns, [*self._read()[1], cells])
            self.columns = columns
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                _writer(file).writerow(cells)

    def sync(self) -> None:
        """Make the rows survive a power cut."""
        if self.path.exists():
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())

    def _read(self) -> tuple[list[str], list[list[str]], bool]:
        """Columns, whole rows, and whether there is half a line at the end."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        columns, *rows = list(csv.reader(io.StringIO(whole.decode("utf-8"), newline=""))) or [[]]
        return columns, rows, len(whole) < len(data)

    def _step(self, row: Sequence[str]) -> int:
        try:
            return int(row[self.columns.index(ORDER)])
        except (IndexError, ValueError) as error:
            raise BadInput(
                f"{self.path}: a row without a whole number as '{ORDER}', which was not written here; "
                "move the file elsewhere, and resume"
            ) from error

    def _replace(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        # What a kill leaves of it is replaced by the next one.
        temporary = self.path.with_name(f".{self.path.name}")
        try:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                writer = _writer(file)
                if columns:
                    writer.writerow(columns)
                writer.writerows([*row, *[""] * (len(columns) - len(row))] for row in rows)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)


def _writer(file: io.TextIOBase) -> Any:
    return csv.writer(file, lineterminator="\n")


def _cell(value: object) -> object:
    """What a cell holds: numbers as they are, text in one line, and JSON for everything else."""
    if isinstance(value, str):
        # One row is one line, so that half a row is known by its missing end.
        return " ".join(value.splitlines())
    return value if value is None or isinstance(value, int | float) else json.dumps(value)
