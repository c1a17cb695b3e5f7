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
from ebmkit.stopping import INTERRUPTED, TRY_AGAIN, Preempted

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
    """Two threads beside a rank, whatever that waits for.

    One talks to the job's store, over a connection of its own. The other one waits for nothing, so that it notices
    where the first gets no answer any more: rank 0, which holds the store, may be gone without a farewell.
    """

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self.place, self.say = place, say
        self.store = TCPStore(place.address, place.port, is_master=False, timeout=UNANSWERED)
        # A job that torchrun starts again meets the keys of its last try.
        self.prefix = f"ebmkit/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self.host = socket.gethostname()
        self.failure: Failure | None = None
        self.limit = SILENT
        self.seen: dict[int, tuple[bytes, float]] = {}
        self.answered = time.monotonic()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.changed = threading.Event()
        self._set(f"who/{place.rank}", f"{self.host}, process {os.getpid()}")
        named = {"ebmkit-watch": self._talk, "ebmkit-deadline": self._keep_time}
        self.threads = [threading.Thread(target=body, name=name, daemon=True) for name, body in named.items()]
        for thread in self.threads:
            thread.start()

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Tell the others of an error that leaves this block; where another rank's came first, raise `RankFailed`."""
        try:
            yield
        except RankLost as error:
            self.limit = LOST
            self.changed.wait(LOST + GRACE)
            if self.failure is None:
                # Nobody else failed, so that it was something of this rank's own.
                self._report(error.__cause__ or error)
                raise
            if self.failure.rank == self.place.rank:
                raise
            raise RankFailed(str(self.failure), self.failure.exit_code) from error
        except BaseException as error:
            first = self._report(error)
            if first.rank != self.place.rank and isinstance(error, Exception) and not isinstance(error, EbmkitError):
                raise RankFailed(str(first), first.exit_code) from error
            raise

    def wait_for_rank_0(self) -> None:
        """Return once rank 0 has come here, too, however long that takes; `RankFailed` if the job fails meanwhile."""
        if self.place.rank == 0:
            self._set("done", "yes")
        while self._get("done") != b"yes":
            if self.changed.wait(0.1) and self.failure is not None:
                raise RankFailed(str(self.failure), self.failure.exit_code)

    def close(self) -> None:
        """Give no more signs, and end nobody any more."""
        self.over.set()
        # A thread that is within the store as Python ends would abort the process.
        for thread in self.threads:
            thread.join(2 * BEAT)

    def _report(self, error: BaseException) -> Failure:
        """Make this error the job's failure, unless there is one; which it is."""
        if isinstance(error, EbmkitError):
            mine = Failure(self.place.rank, self.host, f"error: {error}", error.exit_code)
        elif isinstance(error, KeyboardInterrupt):
            code = TRY_AGAIN if isinstance(error, Preempted) else INTERRUPTED
            mine = Failure(self.place.rank, self.host, "it was asked to stop before it could save anything", code)
        else:
            mine = Failure(self.place.rank, self.host, "".join(traceback.format_exception(error)).rstrip())
        with suppress(RuntimeError, OSError):
            self._publish(mine)
        return self.failure or mine

    def _publish(self, failure: Failure) -> None:
        if self.lock.acquire(timeout=BEAT):
            try:
                kept = self.store.compare_set(f"{self.prefix}/failure", "", json.dumps(asdict(failure)))
            finally:
                self.lock.release()
            failure = Failure(**json.loads(kept))
        self._note(failure)

    def _note(self, failure: Failure) -> None:
        self.failure = self.failure or failure
        self.changed.set()

    def _talk(self) -> None:
        """Give a sign of life and look after the others, again and again."""
        beats = 0
        while not self.over.wait(BEAT) and self.failure is None:
            beats += 1
            try:
                self._set(f"beat/{self.place.rank}", str(beats))
                self._look()
            except (RuntimeError, OSError) as error:
                if not self.over.is_set():
                    self._note(self._without_rank_0((str(error) or type(error).__name__).splitlines()[0]))
                return
            self.answered = time.monotonic()

    def _look(self) -> None:
        """Read whether anybody failed; rank 0 looks after all others."""
        told = self._get("failure")
        if told:
            self._note(Failure(**json.loads(told)))
            return
        now = time.monotonic()
        for rank in range(1, self.place.world_size) if self.place.rank == 0 else ():
            beat = self._get(f"beat/{rank}")
            if rank not in self.seen or self.seen[rank][0] != beat:
                self.seen[rank] = beat, now
            elif now - self.seen[rank][1] > self.limit:
                host, _, process = self._get(f"who/{rank}").decode().partition(", ")
                text = f"{process or 'it'} has given no sign of life for {self.limit:.0f} s: killed, or out of memory?"
                self._publish(Failure(rank, host or "an unknown host", text))
                return

    def _keep_time(self) -> None:
        """End this process where another one failed, where rank 0 does not answer, or where the launcher is gone."""
        last, launcher = time.monotonic(), self.place.launcher
        while not self.over.wait(BEAT):
            now = time.monotonic()
            if now - last > 3 * BEAT:
                # This process itself was stopped for a while, and has heard of nobody.
                self.answered, self.seen = now, {}
            last = now
            if launcher is not None and os.getppid() != launcher:
                # Whoever could stop this job is gone: end as if it had asked.
                launcher = None
                os.kill(os.getpid(), signal.SIGTERM)
            if self.failure is None and now - self.answered > self.limit + BEAT:
                self._note(self._without_rank_0(f"no answer for {now - self.answered:.0f} s"))
            if self.failure is not None:
                self._end(self.failure)
                return

    def _without_rank_0(self, reason: str) -> Failure:
        return Failure(0, self.place.address, f"it cannot be reached any more ({reason})")

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
        """The value, empty if there is none."""
        with self.lock:
            return self.store.get(f"{self.prefix}/{key}") if self.store.check([f"{self.prefix}/{key}"]) else b""
