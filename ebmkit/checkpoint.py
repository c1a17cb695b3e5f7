"""Checkpoints: everything that a resumed run needs to go on to the same numbers, on as many ranks or others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ebmkit.distributed.world import World
from ebmkit.errors import BadInput
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
) -> Path:
    """Write the checkpoint of `step` (temporary name, synced, renamed) and delete old ones beyond `keep`.

    Every rank calls it with the states that are `local` to it, and rank 0 with the `shared` ones.
    """
    temporary = run.unfinished_checkpoint(step)
    if world.first:
        run.begin_checkpoint(step)
    world.barrier()
    save_state(temporary / rank_file(world.rank), local)
    if world.first:
        save_state(temporary / SHARED, {"step": step, "images_seen": images_seen, "ranks": world.size, **shared})
    # It gets its name only once every part is there.
    world.barrier()
    return run.finish_checkpoint(step, keep) if world.first else run.checkpoint(step)


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
