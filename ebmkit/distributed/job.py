"""Taking part in a job: meeting the others, being watched, and leaving together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ebmkit.distributed.place import Place
from ebmkit.distributed.watch import Watch
from ebmkit.distributed.world import Group, Solo, World, join


@contextmanager
def taking_part(place: Place, say: Callable[[str], None]) -> Iterator[World]:
    """The job's processes, until all of them leave this block; an error in one of them ends it in all.

    Raises `RankFailed` where another rank failed first. `say` gets the last words of a rank that has to be ended.
    """
    world = join(place)
    if not isinstance(world, Group):
        yield Solo()
        return
    world.say = say
    watch = Watch(place, lambda message: world.say(message))
    try:
        with watch.guarding():
            yield world
            # Rank 0 holds the job's store: it leaves with the others.
            world.barrier()
    finally:
        watch.close()
        with suppress(RuntimeError, OSError):
            world.close()
