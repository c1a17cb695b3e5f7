"""Worker processes: torch's DataLoader, set up so that it cannot disturb the training process.

Workers are forked where the platform is Linux. Other start methods import torch again for every worker (seconds each)
and need an `if __name__ == "__main__"` guard in the user's script. Forking is safe here although the parent has used
torch: workers use a single torch thread, never touch an accelerator, and read their orders from pipes only.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from ebmkit.data.remote.command import end_with_commands
from ebmkit.errors import DataError

T = TypeVar("T")
START_METHOD = "fork" if sys.platform == "linux" else None


def start_workers(dataset: IterableDataset[T], workers: int) -> Iterator[T]:
    """The items of `dataset`: one from each worker in turn. They end when the iterator is deleted."""
    with warnings.catch_warnings():
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
        iterator = iter(loader)
    return _explained(iterator)


def _explained(items: Iterator[T]) -> Iterator[T]:
    """The same items; a worker that was killed becomes an error for people."""
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
            # Without a trace of the loader: as long as it lives, its signal handler may report the dead worker again,
            # at any moment and in the midst of anything.
            del items
            raise DataError(
                f"a data worker ended unexpectedly (out of memory?): {reason}; "
                "fewer data.workers or a smaller data.shuffle need less memory"
            )
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
    """Ctrl-C reaches the whole process group, but only the parent is to act on it; it stops the workers by SIGTERM.

    A worker that waits for a slow `pipe:` command is stopped in the midst of that, and takes the command with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_with_commands)
