"""One run of a `pipe:` command."""

from __future__ import annotations

import atexit
import contextlib
import os
import selectors
import signal
import subprocess
import time
from types import FrameType

from ebmkit.data.remote.access import Lasting, Passing

NOT_THERE = (126, 127)
"""What a shell answers where there is no such command, or it may not be run."""
_STDERR_KEPT = 2000
_running: set[CommandAttempt] = set()


class CommandAttempt:
    """A command in a process group of its own, so that all of it can be ended; its standard output is the shard."""

    begin = 0
    length = None
    # A shell tells the status of a pipeline's last command only.
    vouched = False

    def __init__(self, command: str, timeout: float) -> None:
        self._timeout = timeout
        self._owner = os.getpid()
        self._empty = True
        self._said = b""
        try:
            self._process = subprocess.Popen(
                command,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise Passing(f"the command cannot be started: {error.strerror}") from error
        except ValueError as error:
            raise Lasting(f"the command cannot be started: {error}; mend data.shards") from error
        _running.add(self)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out, self._err = self._process.stdout, self._process.stderr
        self._selector = selectors.DefaultSelector()
        for file in (self._out, self._err):
            os.set_blocking(file.fileno(), False)
            self._selector.register(file, selectors.EVENT_READ)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; `Passing` where the command fails, ends without any, or is silent for too long."""
        until = time.monotonic() + self._timeout
        while (left := until - time.monotonic()) > 0:
            ready = [key.fileobj for key, _ in self._selector.select(left)]
            if self._err in ready:
                self._listen()
            if self._out in ready:
                data = os.read(self._out.fileno(), size)
                if not data:
                    self._finish(until)
                self._empty = False
                return data
        raise Passing(f"the command gave no byte for {self._timeout:g} s{self._last_words()}")

    def _finish(self, until: float) -> None:
        """Wait for the command's end; return only if it says that all is well."""
        self._selector.unregister(self._out)
        while self._process.poll() is None:
            if time.monotonic() > until:
                raise Passing(f"the command closed its output, but did not end{self._last_words()}")
            if self._selector.get_map():
                self._selector.select(0.02)
                self._listen()
            else:
                time.sleep(0.02)
        self._listen()
        status = self._process.returncode
        if status in NOT_THERE:
            raise Lasting(
                f"the command cannot be run (exit status {status}){self._last_words()}; install it, or mend data.shards"
            )
        if status:
            how = f"failed with exit status {status}" if status > 0 else f"was ended by signal {-status}"
            raise Passing(f"the command that reads it {how}{self._last_words()}")
        if self._empty:
            raise Passing(f"the command gave nothing{self._last_words()}")

    def _listen(self) -> None:
        """Take what lies in the standard error, so that the command never waits for room."""
        if self._err not in [key.fileobj for key in self._selector.get_map().values()]:
            return
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._err.fileno(), 1 << 16):
                self._said = (self._said + data)[-_STDERR_KEPT:]
            self._selector.unregister(self._err)

    def _last_words(self) -> str:
        """The last lines of the standard error, on one line."""
        lines = [line.strip() for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        return ": " + " | ".join(lines[-3:])[-300:] if lines else ""

    def close(self) -> None:
        """End the command and everything that it started."""
        if self not in _running or self._owner != os.getpid():
            # In a forked process: the command is its parent's.
            return
        _running.discard(self)
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._selector.close()
        self._out.close()
        self._err.close()


@atexit.register
def _end_all() -> None:
    """An error may hold on to a stream until its process ends."""
    for attempt in list(_running):
        if attempt._owner == os.getpid() and attempt._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(attempt._process.pid, signal.SIGKILL)


def end_with_commands(number: int, frame: FrameType | None) -> None:
    """A signal handler: end the commands of this process, then die of the signal."""
    _end_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
