"""Checkpoints: everything that a resumed run needs to go on to the same numbers, on as many ranks or others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ebmkit.distributed.world import World
from ebmkit.errors import BadInput, SaveFailed
from ebmkit.files import reason
from ebmkit.run_folder import RunFolder
from ebmkit.state_file import load_state, save_state

SHARED = "state.safetensors"
"""What is the same on every rank: weights, EMA, optimizer."""


class Stateful(Protocol):
    """Whatever has state to save."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state, as tensors and plain values."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: `shared` over all ranks, and what was local to each rank, in their order."""

    step: int
    images_seen: int
    shared: Mapping[str, Any]
    folder: Path
    ranks: int

    def local(self, rank: int) -> Mapping[str, Any]:
        """The states by name that were local to this rank of the saved run; read when it is asked for."""
        return load_state(self.folder / rank_file(rank))


def rank_file(rank: int) -> str:
    """The file of what belongs to one rank: its part of the buffer, its position in the data."""
    return f"rank-{rank:04d}.safetensors"


def save_checkpoint(
    run: RunFolder,
    step: int,
    images_seen: int,
    shared: Mapping[str, Mapping[str, Any]],
    local: Mapping[str, Mapping[str, Any]],
    keep: int,
    world: World,
    model: Callable[[], object],
) -> Path:
    """Write the model file by `model`, then the checkpoint of `step` (temporary name, synced, renamed).

    Every rank calls it with the states that are `local` to it, and rank 0 with the `shared` ones. Old checkpoints
    beyond `keep` are deleted. Raises `SaveFailed` on all ranks where one of them cannot write; the room of what was
    unfinished is given back then.
    """
    temporary = run.unfinished_checkpoint(step)

    def begin() -> None:
        # The model file first: after a kill between the two, the resumed run comes by here again.
        model()
        run.begin_checkpoint(step)

    def fill() -> None:
        save_state(temporary / rank_file(world.rank), local)
        if world.first:
            save_state(temporary / SHARED, {"step": step, "images_seen": images_seen, "ranks": world.size, **shared})

    # It gets its name only once every part is there.
    try:
        for write, every in ((begin, False), (fill, True), (lambda: run.finish_checkpoint(step, keep), False)):
            _together(run, step, write if every or world.first else None, world)
    except SaveFailed:
        if world.first:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return run.checkpoint(step)


def _together(run: RunFolder, step: int, write: Callable[[], object] | None, world: World) -> None:
    """Wait until every rank has written its part; `SaveFailed` on all of them if one could not."""
    problem = None
    try:
        if write is not None:
            write()
    except OSError as error:
        problem = reason(error, run.folder)
    for rank, found in enumerate(world.all_gather(problem)):
        if found is not None:
            by = f" by rank {rank}" if world.size > 1 else ""
            raise SaveFailed(f"{run.folder}: the checkpoint of step {step} cannot be written{by}: {found}")


def newest(run: RunFolder) -> int | None:
    """The step of the newest complete checkpoint of a run, or None if it has none yet."""
    found = run.complete_checkpoints()
    return found[-1][0] if found else None


def load(run: RunFolder, step: int | None) -> Checkpoint | None:
    """The checkpoint of `step`, or None for None; raises `BadInput` if it is damaged, or cannot be seen from here."""
    if step is None:
        return None
    folder = run.checkpoint(step)
    shared = load_state(folder / SHARED)
    if shared.get("step") != step:
        raise BadInput(f"{folder}: holds step {shared.get('step')}; move it away to resume from an older checkpoint")
    # Runs of one process, before there could be several, do not say it.
    return Checkpoint(step, int(shared["images_seen"]), shared, folder, int(shared.get("ranks", 1)))
