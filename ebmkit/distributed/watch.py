"""Nobody waits for a process that is gone: each rank gives signs of life, and the first failure ends them all."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ebmkit.distributed.place import Place
from ebmkit.errors import EbmkitError, RankFailed, RankLost

BEAT = 2.0
"""Seconds between signs of life."""
SILENT = 20.0
"""Seconds without one after which a rank counts as dead."""
LOST = 8.0
"""The same, once a connection to some rank broke."""
GRACE = 10.0
"""Seconds that a rank has to end by itself after another one failed."""
UNANSWERED = timedelta(seconds=15)


@dataclass(frozen=True)
class Failure:
    """What ended a rank, for the others to show."""

    rank: int
    host: str
    text: str
    exit_code: int = 1

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} failed:\n{self.text}"


class Watch:
    """A thread that speaks to the job's store over a connection of its own, whatever the rank itself waits for."""

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self.place, self.say = place, say
        self.store = TCPStore(place.address, place.port, is_master=False, timeout=UNANSWERED)
        # A job that torchrun starts again meets the keys of its last try.
        self.prefix = f"ebmkit/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self.host = socket.gethostname()
        self.failure: Failure | None = None
        self.limit = SILENT
        self.seen: dict[int, tuple[bytes, float]] = {}
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.changed = threading.Event()
        self.thread = threading.Thread(target=self._run, name="ebmkit-watch", daemon=True)
        self._set(f"who/{place.rank}", f"{self.host}, process {os.getpid()}")
        self.thread.start()

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Tell the others of an error that leaves this block; where another rank's came first, raise `RankFailed`."""
        try:
            yield
        except RankLost as error:
            failure = self._await_failure()
            if failure is None or failure.rank == self.place.rank:
                raise
            raise RankFailed(str(failure), failure.exit_code) from error
        except BaseException as error:
            first = self._report(error)
            if first.rank != self.place.rank and isinstance(error, Exception) and not isinstance(error, EbmkitError):
                raise RankFailed(str(first), first.exit_code) from error
            raise

    def close(self) -> None:
        """Give no more signs, and end nobody any more."""
        self.over.set()
        self.thread.join(2 * BEAT)

    def _report(self, error: BaseException) -> Failure:
        code = error.exit_code if isinstance(error, EbmkitError) else 1
        if isinstance(error, EbmkitError):
            text = f"error: {error}"
        else:
            text = "".join(traceback.format_exception(error)).rstrip()
        mine = Failure(self.place.rank, self.host, text, code)
        with suppress(RuntimeError, OSError):
            self._publish(mine)
        return self.failure or mine

    def _await_failure(self) -> Failure | None:
        """Why a connection broke: the failure that a rank told of, or the rank that gives no sign any more."""
        self.limit = LOST
        self.changed.wait(LOST + GRACE)
        return self.failure

    def _publish(self, failure: Failure) -> None:
        """Make this the job's failure, unless there is one."""
        with self.lock:
            kept = self.store.compare_set(f"{self.prefix}/failure", "", json.dumps(asdict(failure)))
        self.failure = Failure(**json.loads(kept))
        self.changed.set()

    def _run(self) -> None:
        beats, parent = 0, os.getppid()
        while not self.over.wait(BEAT):
            beats += 1
            if self.place.launcher is not None and os.getppid() != parent:
                # The launcher is gone, and with it whoever could stop this job: end as if it had asked.
                self.place = Place(self.place.rank, self.place.world_size)
                os.kill(os.getpid(), signal.SIGTERM)
            try:
                self._set(f"beat/{self.place.rank}", str(beats))
                self._look()
            except (RuntimeError, OSError) as error:
                if self.over.is_set():
                    return
                reason = (str(error) or type(error).__name__).splitlines()[0]
                self.failure = Failure(0, self.place.address, f"it cannot be reached any more ({reason})")
                self.changed.set()
            if self.failure is not None:
                self._end(self.failure)
                return

    def _look(self) -> None:
        """Read whether anybody failed; rank 0 looks after all others, they look after rank 0."""
        with self.lock:
            if self.store.check([f"{self.prefix}/failure"]):
                self.failure = Failure(**json.loads(self.store.get(f"{self.prefix}/failure")))
                self.changed.set()
                return
        others = range(1, self.place.world_size) if self.place.rank == 0 else range(1)
        now = time.monotonic()
        for rank in others:
            beat = self._get(f"beat/{rank}")
            if rank not in self.seen or self.seen[rank][0] != beat:
                self.seen[rank] = beat, now
            elif now - self.seen[rank][1] > self.limit:
                who = self._get(f"who/{rank}").decode()
                host, _, process = who.partition(", ")
                text = f"{process or 'it'} has given no sign of life for {self.limit:.0f} s: killed, or out of memory?"
                self._publish(Failure(rank, host or "an unknown host", text))
                return

    def _end(self, failure: Failure) -> None:
        """End this process if it does not do so by itself; it may wait for a rank that never comes."""
        if self.over.wait(GRACE):
            return
        if failure.rank != self.place.rank:
            self.say(f"error: {failure}")
        if sys.stdout.isatty():
            # The live view hides the cursor, and cannot give it back any more.
            sys.stdout.write("\x1b[?25h")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(failure.exit_code)

    def _set(self, key: str, value: str) -> None:
        with self.lock:
            self.store.set(f"{self.prefix}/{key}", value)

    def _get(self, key: str) -> bytes:
        with self.lock:
            return self.store.get(f"{self.prefix}/{key}") if self.store.check([f"{self.prefix}/{key}"]) else b""
