"""Files of one JSON object a line, which are only appended to and survive full disks and power cuts."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ebmkit.files import sync_folder


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row and see it on the disk; processes that do so at once take turns. Raises `OSError`."""
    line = json.dumps(row).encode() + b"\n"
    with path.open("ab+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            # Half a line, as a full disk or a power cut leaves it, would spoil this one.
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows, oldest first; a line that is none, such as one that a full disk cut off, is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row
