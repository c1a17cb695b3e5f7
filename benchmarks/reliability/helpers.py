"""What the campaigns share: the helpers of the tests, tiny runs, and disks that can be filled or write-protected."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ebmkit.run_folder import RunFolder
from ebmkit.state_file import load_state

TESTS = Path(__file__).resolve().parents[2] / "tests"
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))

from run_helpers import Command as Command  # noqa: E402
from run_helpers import Result as Result  # noqa: E402
from run_helpers import differences as differences  # noqa: E402
from run_helpers import environment as environment  # noqa: E402
from run_helpers import last_checkpoint as last_checkpoint  # noqa: E402
from run_helpers import metrics_of as metrics_of  # noqa: E402
from run_helpers import tiny_table as tiny_table  # noqa: E402
from run_helpers import wait_until as wait_until  # noqa: E402
from run_helpers import write_recipe as write_recipe  # noqa: E402
from run_helpers import write_shards as write_shards  # noqa: E402

Progress = Callable[[str], None]
LONG = 300.0
"""Seconds: machines may be busy."""


class Unavailable(Exception):
    """This machine does not let us make the fault."""


def train(*words: object, cwd: Path) -> Result:
    """`ebmkit train WORDS`, to its end."""
    return Command("train", *words, cwd=cwd).wait()


def has_checkpoint(run: Path, step: int) -> bool:
    """Whether a complete checkpoint of this step or a later one is there."""
    return any(found >= step for found, _ in RunFolder(run).complete_checkpoints())


def leftovers(run: Path) -> list[str]:
    """What was not finished, by its temporary name."""
    return sorted(str(path.relative_to(run)) for path in run.rglob(".*") if path.name != ".lock")


def differs(run: Path, whole: Path, metrics: bool = True) -> list[str]:
    """In what the last checkpoint (weights, average, optimizer, buffer, data), the model file and metrics differ."""
    found = [f"checkpoint{path}" for path in differences(last_checkpoint(run), last_checkpoint(whole))]
    models = [load_file(folder / "model.safetensors") for folder in (run, whole)]
    found += [f"model{path}" for path in differences(*models)]
    return found + (["metrics.jsonl"] if metrics and metrics_of(run) != metrics_of(whole) else [])


def state_of(checkpoint: Path) -> dict[str, Any]:
    """Everything that a checkpoint holds."""
    return {path.name: load_state(path) for path in sorted(checkpoint.iterdir())}


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[Path]:
    """A disk of its own, in memory; `Unavailable` where mounting is not allowed."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "none", folder)
    try:
        yield folder
    finally:
        _mount("-l", folder, command="umount")


@contextlib.contextmanager
def bound_read_only(folder: Path) -> Iterator[None]:
    """The folder, seen through a mount that refuses every write; what a process has open before stays open."""
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,bind,ro", folder)
        yield
    finally:
        _mount("-l", folder, command="umount")


def _mount(*words: object, command: str = "mount") -> None:
    try:
        done = subprocess.run([command, *map(str, words)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"no {command} here") from error
    if done.returncode:
        raise Unavailable(f"{command} is not allowed here: {done.stderr.strip()}")


def fill(folder: Path, leaving: int) -> Path:
    """A file that takes all of a disk but `leaving` bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while (free := os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - leaving) > 0:
            try:
                file.write(bytes(min(free, 1 << 20)))
            except OSError:
                break
    return ballast


def free_bytes(folder: Path) -> int:
    """What a disk has left."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl, which must all be whole."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
