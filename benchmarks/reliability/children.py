"""Commands in processes of their own, watched: what they took, what they did that they must not do, how they ended.

A server process imports what all commands need and forks one process for each: seconds less than a start of Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Ended:
    """How a command ended. `events` are what an audit hook saw of the forbidden; `rise_mb` is its peak memory above the
    server's, `None` for its code a command that had to be killed."""

    code: int | None
    output: str
    seconds: float
    rise_mb: float
    events: tuple[str, ...]


class Server:
    """Runs commands of ebmkit, one at a time, in forks of a process that has imported torch."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR", "COLUMNS")}
        limited = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLCONFIGDIR": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**kept, **limited, **(env or {})},
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def run(self, words: Sequence[object], cwd: Path, allowed: Sequence[Path] = (), seconds: float = 120.0) -> Ended:
        """`ebmkit WORDS` in `cwd`; it may write there and below `allowed`, and is killed after so many `seconds`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order: dict[str, Any] = {
            "words": [os.fsdecode(os.fspath(word)) if isinstance(word, Path) else str(word) for word in words],
            "cwd": str(cwd),
            "allowed": [str(path) for path in (cwd, self.folder, *allowed)],
            "seconds": seconds,
            "out": str(self.folder / "output"),
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        text = (self.folder / "output").read_bytes().decode(errors="backslashreplace")
        return Ended(found["code"], text, found["seconds"], found["rise_mb"], tuple(found["events"]))
