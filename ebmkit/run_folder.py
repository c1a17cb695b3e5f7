"""The run folder: recipe, metrics, sample grids, checkpoints and the model file of one run.

Nothing in it is ever overwritten by another run, and a kill at any moment leaves a run that resumes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebmkit.errors import BadInput
from ebmkit.files import is_temporary, sync_folder, write_text, written
from ebmkit.json_lines import append_line, read_lines

_CHECKPOINT = re.compile(r"step-(\d{9})\Z")
_UNFINISHED = re.compile(r"\.(old-)?step-\d{9}\Z")
"""Checkpoints on their way in or out."""


@dataclass(frozen=True)
class RunInfo:
    """What lifecycle hooks learn of a run: its folder and the resolved recipe, as plain values."""

    folder: Path
    recipe: Mapping[str, Any]


class RunFolder:
    """The paths of a run, and the writes that must be atomic."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "recipe.toml"
        self.metrics = folder / "metrics.jsonl"
        self.evaluations = folder / "evaluations.jsonl"
        self.samples = folder / "samples"
        self.checkpoints = folder / "checkpoints"
        self.model = folder / "model.safetensors"
        self.lock = folder / ".lock"
        self.logs = folder / "logs"

    def create(self, recipe_toml: str) -> None:
        """Make a new run folder; raises `BadInput` if something is there.

        A kill within leaves either nothing but the lock, which is a free folder, or the recipe, which is a run.
        """
        self.require_free()
        made = [path for path in (self.folder, self.checkpoints, self.samples) if not path.exists()]
        try:
            with written(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text(self.recipe, recipe_toml)
                self.make_folders()
                sync_folder(self.folder)
        except BadInput:
            # So that the same command may be given again.
            for path in (self.recipe, *reversed(made)):
                with suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()
            raise

    def make_folders(self) -> None:
        """The folders of a run, which a kill at its start may have left out."""
        self.samples.mkdir(exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)

    def require_free(self) -> None:
        """Raise `BadInput` if anything but a lock is there."""
        if self.folder.exists() and (not self.folder.is_dir() or {*self.folder.iterdir()} - {self.lock}):
            raise BadInput(
                f"{self.folder}: already exists and is never overwritten; go on with that run by --resume, "
                "or choose another folder by --run-dir"
            )

    def require(self) -> None:
        """Raise `BadInput` unless this is a run folder."""
        if not self.recipe.is_file():
            raise BadInput(f"{self.folder}: no run here (no recipe.toml); `ebmkit train` without --resume starts one")

    def keep_recipe(self, recipe_toml: str) -> None:
        """Replace recipe.toml by what a resumed run goes on with, if it differs; the earlier one is kept beside it."""
        if recipe_toml == self.recipe.read_text(encoding="utf-8"):
            return
        earlier = len(list(self.folder.glob("recipe-*.toml"))) + 1
        with written(self.folder):
            write_text(self.folder / f"recipe-{earlier}.toml", self.recipe.read_text(encoding="utf-8"))
            write_text(self.recipe, recipe_toml)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; raises `BadInput` while another one trains in it."""
        with written(self.folder):
            file = self.lock.open("w")
        with file:
            with written(self.folder):
                try:
                    # The kernel lets go of it however the process ends. Not flock: data workers are forks and would
                    # inherit that lock, and hold it for seconds after their parent was killed.
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except (BlockingIOError, PermissionError) as error:
                    raise BadInput(f"{self.folder}: another process is training in this run folder") from error
            yield

    @contextmanager
    def discarded_if_empty(self) -> Iterator[None]:
        """Remove the folder again if an error comes before anything was trained, so that the next try may have it.

        Where a plugin has written something, it stays a run, which --resume begins at its first step.
        """
        try:
            yield
        except BaseException:
            self.clean()
            ours = {self.recipe, self.lock, self.samples, self.checkpoints, self.logs}
            written = [*(self.samples.iterdir() if self.samples.is_dir() else ()), *self.complete_checkpoints()]
            if ours.issuperset(self.folder.iterdir()) and not written:
                # What the logs of ranks say by now, rank 0 has shown.
                for path in (self.recipe, self.lock, *self.logs.glob("rank-*.log")):
                    with suppress(OSError):
                        path.unlink()
                for folder in (self.samples, self.checkpoints, self.logs, self.folder):
                    with suppress(OSError):
                        folder.rmdir()
            raise

    def complete_checkpoints(self) -> list[tuple[int, Path]]:
        """(step, folder) of every complete checkpoint, oldest first; unfinished ones have temporary names."""
        if not self.checkpoints.is_dir():
            return []
        found = [(_CHECKPOINT.match(path.name), path) for path in self.checkpoints.iterdir() if path.is_dir()]
        return sorted((int(match[1]), path) for match, path in found if match)

    def checkpoint(self, step: int) -> Path:
        """The folder of the complete checkpoint of `step`."""
        return self.checkpoints / f"step-{step:09d}"

    def unfinished_checkpoint(self, step: int) -> Path:
        """The temporary folder into which the checkpoint of `step` is written."""
        return self.checkpoints / f".step-{step:09d}"

    def begin_checkpoint(self, step: int) -> Path:
        """An empty temporary folder to write the checkpoint of `step` into."""
        temporary = self.unfinished_checkpoint(step)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        return temporary

    def finish_checkpoint(self, step: int, keep: int) -> Path:
        """Give a written checkpoint its final name, then delete the oldest beyond `keep`."""
        temporary, final = self.unfinished_checkpoint(step), self.checkpoint(step)
        sync_folder(temporary)
        if final.exists():
            # The same step was saved before (a resumed run that had nothing left to do): same content.
            shutil.rmtree(temporary)
            return final
        os.rename(temporary, final)
        sync_folder(self.checkpoints)
        for _, old in self.complete_checkpoints()[:-keep]:
            self._delete(old)
        return final

    def _delete(self, checkpoint: Path) -> None:
        # Renamed first: a kill within rmtree must not leave half a checkpoint under a complete name.
        gone = checkpoint.with_name(f".old-{checkpoint.name}")
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(checkpoint, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def discard_checkpoints_after(self, step: int) -> None:
        """Delete the complete checkpoints of later steps, which a run that went back to `step` must not resume from."""
        for later, path in self.complete_checkpoints():
            if later > step:
                self._delete(path)

    def clean(self) -> None:
        """Remove what a killed process left unfinished."""
        for folder in (self.checkpoints, self.samples, self.folder):
            for path in folder.glob(".*") if folder.is_dir() else ():
                # Names that ebmkit gives, and no others: a plugin may keep hidden files, and a person a repository.
                if not (is_temporary(path.name) or _UNFINISHED.match(path.name)):
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        path.unlink()

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl; where that raises `OSError`, no half of it is left."""
        with self.metrics.open("ab", buffering=0) as file:
            size, line = file.seek(0, os.SEEK_END), memoryview(json.dumps(row).encode() + b"\n")
            try:
                while line:
                    line = line[file.write(line) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl; one that is none, such as one that a kill cut off, is passed over."""
        return (row for row, _ in self._metrics())

    def _metrics(self) -> Iterator[tuple[dict[str, Any], int]]:
        """The rows of metrics.jsonl, and where each ends, in bytes."""
        if not self.metrics.is_file():
            return
        end = 0
        with self.metrics.open("rb") as file:
            for line in file:
                end += len(line)
                if line.endswith(b"\n"):
                    with suppress(ValueError, RecursionError):
                        row = json.loads(line)
                        if isinstance(row, dict) and "step" in row:
                            yield row, end

    def append_evaluation(self, row: Mapping[str, Any]) -> None:
        """Append a line to evaluations.jsonl; processes that do so at once take turns."""
        append_line(self.evaluations, row)

    def read_evaluations(self) -> Iterator[dict[str, Any]]:
        """The evaluations, oldest first; a line that is none, such as one that a full disk cut off, is passed over."""
        return read_lines(self.evaluations)

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after `step`: those steps are about to be done again."""
        if self.metrics.is_file():
            # In place: it needs no room, where a full disk is why the run stopped.
            with written(self.metrics):
                os.truncate(self.metrics, max((end for row, end in self._metrics() if row["step"] <= step), default=0))


def default_run_folder(recipe_name: str) -> Path:
    """`runs/NAME`, where a recipe's run goes unless `--run-dir` says otherwise."""
    return Path("runs") / recipe_name
