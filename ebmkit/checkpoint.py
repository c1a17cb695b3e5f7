"""Checkpoints: everything that a resumed run needs to go on to the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
    """A checkpoint that was read: `shared` over all ranks, `local` to this one; each a state by name."""

    step: int
    images_seen: int
    shared: Mapping[str, Any]
    local: Mapping[str, Any]


def rank_file(rank: int) -> str:
    """The file of what belongs to one rank: its part of the buffer, its position in the data."""
    return f"rank-{rank:04d}.safetensors"


def save_checkpoint(
    run: RunFolder,
    step: int,
    images_seen: int,
    shared: Mapping[str, Stateful],
    local: Mapping[str, Stateful],
    keep: int,
) -> Path:
    """Write the checkpoint of `step` (temporary name, synced, renamed) and delete old ones beyond `keep`."""
    temporary = run.begin_checkpoint(step)
    header = {"step": step, "images_seen": images_seen}
    save_state(temporary / SHARED, header | {name: item.state_dict() for name, item in shared.items()})
    save_state(temporary / rank_file(0), {name: item.state_dict() for name, item in local.items()})
    return run.finish_checkpoint(temporary, keep)


def load_newest(run: RunFolder) -> Checkpoint | None:
    """The newest complete checkpoint of a run, or None if it has none yet; raises `BadInput` if it is damaged."""
    found = run.complete_checkpoints()
    if not found:
        return None
    step, folder = found[-1]
    shared, local = load_state(folder / SHARED), load_state(folder / rank_file(0))
    if shared.get("step") != step:
        raise BadInput(f"{folder}: holds step {shared.get('step')}; move it away to resume from an older checkpoint")
    return Checkpoint(step, int(shared["images_seen"]), shared, local)
