"""What was local to the ranks of a saved run, dealt out to the ranks of this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebmkit.checkpoint import Checkpoint
from ebmkit.distributed.world import World
from ebmkit.interfaces import Buffer, Context


def buffer_state(saved: Checkpoint, buffer: type[Buffer], context: Context) -> Mapping[str, Any]:
    """This rank's part of the saved buffer: its own on as many ranks, else a new share of all the slots together."""
    if saved.ranks == context.world_size:
        state: Mapping[str, Any] = saved.local(context.rank)["buffer"]
        return state
    return buffer.redeal([saved.local(rank)["buffer"] for rank in range(saved.ranks)], context)


def data_state(saved: Checkpoint, world: World) -> Mapping[str, Any]:
    """This rank's position in the data: its own on as many ranks.

    On another number of ranks it is that of the rank which had got furthest. A cached set goes on exactly from there,
    since its position counts the images of all ranks; streamed shards are dealt out anew and begin their next pass.
    """
    if saved.ranks == world.size:
        state: Mapping[str, Any] = saved.local(world.rank)["data"]
        return state
    states: list[Mapping[str, Any]] = [saved.local(rank)["data"] for rank in range(saved.ranks)]
    furthest = max(states, key=lambda state: int(state["pass"]))
    # Positions in shards are a rank's own, also where as many workers in all read them now as then.
    if furthest["kind"] == "cache":
        return furthest
    skipped = sum(int(state["skipped"]) for state in states) if world.first else 0
    return {**furthest, "fingerprint": "", "skipped": skipped}
