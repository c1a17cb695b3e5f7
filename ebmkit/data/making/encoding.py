"""Loading and encoding images, in this process or in several, with the results in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from ebmkit.data.framing import CorruptImage
from ebmkit.data.making.framed import Framing
from ebmkit.data.making.sources import Source
from ebmkit.errors import EbmkitError

BLOCK = 8
"""Images that a worker process gets at a time."""


class Encoded(NamedTuple):
    """An image for a shard, `size` its `(height, width)`; or why there is none."""

    number: int
    data: bytes
    size: tuple[int, int]
    label: int | None
    trouble: str | None = None


def encode_all(source: Source, framing: Framing, order: Sequence[int], workers: int) -> Iterator[Encoded]:
    """The images of `source` in this `order`, by `workers` processes; 0 or 1 works in this one."""
    blocks = [order[begin : begin + BLOCK] for begin in range(0, len(order), BLOCK)]
    workers = min(workers, len(blocks))
    if workers < 2:
        for index in order:
            yield _encode(source, framing, index)
        return
    # Forked, as the data workers are (see ebmkit.data.loader), so that scripts need no `__main__` guard.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context(method), initializer=_begin_worker, initargs=(source, framing, os.getpid())
    )
    try:
        # Few blocks ahead, so that memory does not grow with the size of the source.
        waiting: deque[Future[list[Encoded]]] = deque()
        for block in blocks:
            waiting.append(pool.submit(_encode_block, block))
            if len(waiting) > 3 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise EbmkitError("a worker process was killed (out of memory?); try again with fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(source: Source, framing: Framing, index: int) -> Encoded:
    try:
        picture, label = source.load(index)
        data, size = framing(picture)
    except CorruptImage as error:
        return Encoded(index, b"", (0, 0), None, str(error))
    return Encoded(index, data, size, label)


_job: tuple[Source, Framing]
"""What a worker process works on."""


def _begin_worker(source: Source, framing: Framing, parent: int) -> None:
    global _job
    _job = (source, framing)
    # Ctrl-C reaches the whole process group; the parent alone acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Workers of a pool would otherwise outlive a parent that was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _encode_block(block: Sequence[int]) -> list[Encoded]:
    return [_encode(*_job, index) for index in block]
