"""Worker processes: torch's DataLoader, set up so that it cannot disturb the training process.

Workers are forked where the platform is Linux. Other start methods import torch again for every worker (seconds each)
and need an `if __name__ == "__main__"` guard in the user's script. Forking is safe here although the parent has used
torch: workers use a single torch thread, never touch an accelerator, and read their orders from pipes only.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from ebmkit.data.remote.command import end_with_commands
from ebmkit.errors import DataError

T = TypeVar("T")
START_METHOD = "fork" if sys.platform == "linux" else None
RESTARTS = 3
"""How often in a row workers are started again after one was killed."""
STEADY = 100
"""Items after which a death counts as the first one again."""


def start_workers(
    dataset: Callable[[int], IterableDataset[T]], workers: int, warn: Callable[[str], None]
) -> Iterator[T]:
    """The items of `dataset(0)`: one from each worker in turn. They end when the iterator is deleted.

    After a worker was killed, new ones go on with `dataset(n)`: whatever comes after the first `n` items, which were
    taken. `DataError` where workers are killed again and again.
    """
    # The first ones start now, not when the first item is asked for.
    return _going_on(_items(dataset(0), workers), dataset, workers, warn)


def _going_on(
    items: Iterator[T], dataset: Callable[[int], IterableDataset[T]], workers: int, warn: Callable[[str], None]
) -> Iterator[T]:
    taken = deaths = 0
    died_at = -STEADY
    explained = _explained(items)
    del items
    while True:
        try:
            for item in explained:
                # Before it is given: whoever takes it and comes back has dealt with it.
                taken += 1
                yield item
            return
        except WorkerDied as error:
            deaths = 1 if taken - died_at >= STEADY else deaths + 1
            died_at = taken
            if deaths > RESTARTS:
                raise DataError(
                    f"{error}, {deaths} times in a row; fewer data.workers or a smaller data.shuffle need less memory"
                ) from error
            warn(f"{error}; new ones go on from where it was")
        explained = _explained(_items(dataset(taken), workers))


class WorkerDied(DataError):
    """A worker process was killed."""


def _items(dataset: IterableDataset[T], workers: int) -> Iterator[T]:
    with warnings.catch_warnings(), _without_interruptions():
        # Python 3.12 warns of every fork in a process with threads, torch of more workers than CPUs: both are meant.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader: DataLoader[T] = DataLoader(
            dataset,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            multiprocessing_context=START_METHOD if workers else None,
            worker_init_fn=_quieten,
            # An own generator: the loader would draw a seed from the global one, and change the run's random numbers.
            generator=torch.Generator(),
        )
        return iter(loader)


@contextmanager
def _without_interruptions() -> Iterator[None]:
    """Give SIGCHLD back: torch's handler raises, in the midst of anything, when a worker was killed.

    Whoever waits for a worker learns of its end all the same, within five seconds.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if before is not None and signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)


def _explained(items: Iterator[T]) -> Iterator[T]:
    """The same items; a worker that was killed becomes `WorkerDied`."""
    while True:
        reason = None
        try:
            item = next(items)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            if not _means_a_dead_worker(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
        if reason is not None:
            # Without a trace of the loader, so that the workers that are left end now.
            del items
            raise WorkerDied(f"a data worker ended unexpectedly (out of memory?): {reason}")
        yield item


def _means_a_dead_worker(error: Exception) -> bool:
    """Whether torch noticed a dead worker, or the connection to it broke while it handed a tensor over."""
    if str(error).startswith("Caught "):
        # torch passes on what a worker raised itself; that worker lives.
        return False
    return "DataLoader worker" in str(error) or isinstance(error, ConnectionError | EOFError | FileNotFoundError)


def _as_it_is(item: T) -> T:
    return item


def _quieten(worker: int) -> None:
    """Ctrl-C and SIGUSR1 may reach the whole process group, but only the parent acts on them.

    It stops the workers by SIGTERM.

    A worker that waits for a slow `pipe:` command is stopped in the midst of that, and takes the command with it.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_with_commands)
