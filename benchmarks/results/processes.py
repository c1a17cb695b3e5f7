"""Calls in processes of their own, some at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def in_processes(jobs: int, call: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterable[Any]:
    """What the calls return, in their order; a new process for each, so that none leaves anything to the next."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        futures = [pool.submit(call, *each) for each in arguments]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            # What has not begun is not wanted any more.
            for future in futures:
                future.cancel()
            raise
