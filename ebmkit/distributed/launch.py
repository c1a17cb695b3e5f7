"""Starting the processes of a job on this machine, and ending all of them when one ends badly. Without torch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO

from ebmkit.distributed.place import LAUNCHER

GRACE = 15.0
"""Seconds that the others have to end by themselves after one ended badly; then they are told, then killed."""
PATIENCE = 5.0
STOPPED = 130
"""Exit code of a run that was asked to stop."""


def launch(arguments: Sequence[str], count: int, device: str, say: Callable[[str], None]) -> int:
    """Run `ebmkit ARGUMENTS` in `count` processes on `device` ("cpu" or "cuda"); the exit code of the whole job.

    Rank 0 has this terminal. What the others say before they have a log in the run folder is shown if they fail.
    """
    port, threads = free_port(), max(1, (os.cpu_count() or 1) // count)
    logs: list[IO[bytes] | None] = [None] + [tempfile.TemporaryFile() for _ in range(1, count)]  # noqa: SIM115
    workers = []
    for rank in range(count):
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
        log = logs[rank]
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "ebmkit", *arguments],
                env=environment,
                stdin=None if rank == 0 else subprocess.DEVNULL,
                stdout=log,
                stderr=None if log is None else subprocess.STDOUT,
            )
        )
    with _passing_signals_on(workers):
        failed = _wait(workers, say)
    codes = [worker.returncode for worker in workers]
    if failed is not None and codes[0] <= 0 and (log := logs[failed]) is not None and (text := _text(log)):
        # Rank 0 tells what ended the job, unless they never met.
        say(f"rank {failed} said:\n{text}")
    for log in logs:
        if log is not None:
            log.close()
    first = codes[0] or next((code for code in codes if code), 0)
    return 128 - first if first < 0 else first


def free_port() -> int:
    """A TCP port that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait(workers: Sequence[subprocess.Popen[bytes]], say: Callable[[str], None]) -> int | None:
    """Wait for all workers; once one ends badly, the rest have to end, too. The rank that failed first, if one did."""
    failed: int | None = None
    ended_at = told_at = 0.0
    while None in [worker.poll() for worker in workers]:
        time.sleep(0.1)
        now = time.monotonic()
        if failed is None:
            # Killed ones first: the others' errors only follow.
            bad = sorted(
                (worker.returncode, rank) for rank, worker in enumerate(workers) if worker.returncode not in (None, 0)
            )
            if bad and bad[0][0] != STOPPED:
                ended_at, (code, failed) = now, bad[0]
                if code < 0:
                    say(f"error: rank {failed} was killed by {signal.Signals(-code).name}; the others are ended")
        elif not told_at and now - ended_at > GRACE:
            told_at = now
            _signal(workers, signal.SIGTERM)
        elif told_at and now - told_at > PATIENCE:
            _signal(workers, signal.SIGKILL)
    return failed


@contextmanager
def _passing_signals_on(workers: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Ctrl-C reaches the workers from the terminal, and they decide; SIGTERM reaches this process only."""

    def forward(number: int, frame: FrameType | None) -> None:
        _signal(workers, number)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, forward),
    }
    try:
        yield
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
