"""Taking part in a job: meeting the others, being watched, and leaving together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ebmkit.distributed.place import Place
from ebmkit.distributed.watch import Watch
from ebmkit.distributed.world import Group, World, join
from ebmkit.errors import TrainingFailed


@contextmanager
def taking_part(place: Place, say: Callable[[str], None]) -> Iterator[World]:
    """The job's processes, until all of them leave this block; an error in one of them ends it in all.

    Raises `RankFailed` where another rank failed first. `say` gets the last words of a rank that has to be ended.
    """
    if place.launcher is not None and os.getppid() != place.launcher:
        raise TrainingFailed("whoever started this process of a job is gone")
    world = join(place)
    if not isinstance(world, Group):
        yield world
        return
    world.say = say
    watch = Watch(place, lambda message: world.say(message))
    try:
        with watch.guarding():
            yield world
            # Rank 0 may have more to do, and holds the job's store: it leaves with the others.
            watch.wait_for_rank_0()
            world.barrier()
    finally:
        # Under watch: where a machine is gone, this waits for it.
        with suppress(RuntimeError, OSError):
            world.close()
        watch.close()
