"""Starting the processes of a job on this machine, and ending all of them when one ends badly. Without torch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from ebmkit.distributed.place import LAUNCHER
from ebmkit.stopping import INTERRUPTED, SIGNALS, TRY_AGAIN, exit_code

GRACE = 15.0
"""Seconds that the others have to end by themselves after one ended badly; then they are told, then killed."""
CHECKPOINT = 120.0
"""The same, after one was asked to stop: they end together, after a checkpoint."""
PATIENCE = 5.0
STOPPED = (INTERRUPTED, TRY_AGAIN)


def launch(arguments: Sequence[str], count: int, device: str, say: Callable[[str], None]) -> int:
    """Run `ebmkit ARGUMENTS` in `count` processes on `device` ("cpu" or "cuda"); the exit code of the whole job.

    Rank 0 has this terminal. What the others say before they have a log in the run folder is shown if they fail.
    """
    port, threads = free_port(), max(1, (os.cpu_count() or 1) // count)
    logs: list[IO[bytes] | None] = [None] + [tempfile.TemporaryFile() for _ in range(1, count)]  # noqa: SIM115
    workers: list[subprocess.Popen[bytes]] = []
    with _passing_signals_on(workers) as asked:
        for rank, log in enumerate(logs):
            environment = os.environ | {
                "RANK": str(rank),
                "WORLD_SIZE": str(count),
                "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                LAUNCHER: f"{os.getpid()} {device}",
            }
            if device == "cpu":
                environment.setdefault("OMP_NUM_THREADS", str(threads))
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "ebmkit", *arguments],
                    env=environment,
                    stdin=None if rank == 0 else subprocess.DEVNULL,
                    stdout=log,
                    stderr=None if log is None else subprocess.STDOUT,
                )
            )
        failed = _wait(workers, asked, say)
    codes = [worker.returncode for worker in workers]
    if failed is not None and codes[0] <= 0 and (log := logs[failed]) is not None and (text := _text(log)):
        # Rank 0 tells what ended the job, unless they never met.
        say(f"rank {failed} said:\n{text}")
    for log in logs:
        if log is not None:
            log.close()
    # Rank 0 knows best, unless it was only ended after another one.
    first = codes[0] if codes[0] > 0 or failed is None else codes[failed]
    if -first in asked:
        # Asked before it could listen.
        return exit_code(-first)
    return 128 - first if first < 0 else first


def free_port() -> int:
    """A TCP port that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait(workers: Sequence[subprocess.Popen[bytes]], asked: Collection[int], say: Callable[[str], None]) -> int | None:
    """Wait for all workers; once one ends badly, the rest have to end, too. The rank that failed first, if one did.

    `asked` are the signals that were passed on.
    """
    failed: int | None = None
    code, ended_at, told_at = 0, 0.0, 0.0
    while None in [worker.poll() for worker in workers]:
        time.sleep(0.1)
        now = time.monotonic()
        if failed is None:
            # Killed ones first: the others' errors only follow.
            bad = sorted(
                (worker.returncode, rank) for rank, worker in enumerate(workers) if worker.returncode not in (None, 0)
            )
            if bad:
                ended_at, (code, failed) = now, bad[0]
                if code < 0 and -code not in asked:
                    say(f"error: rank {failed} was killed by {signal.Signals(-code).name}; the others are ended")
        elif not told_at and now - ended_at > (CHECKPOINT if code in STOPPED else GRACE):
            told_at = now
            _signal(workers, signal.SIGTERM)
        elif told_at and now - told_at > PATIENCE:
            _signal(workers, signal.SIGKILL)
    return failed


@contextmanager
def _passing_signals_on(workers: Sequence[subprocess.Popen[bytes]]) -> Iterator[set[int]]:
    """Signals go to the workers, which decide; from a terminal they have Ctrl-C twice, and notice that.

    Gives the signals that came.
    """
    asked: set[int] = set()

    def forward(number: int, frame: FrameType | None) -> None:
        asked.add(number)
        _signal(workers, number)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace").strip()
