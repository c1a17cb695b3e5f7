"""Stopping when asked: Ctrl-C comes from a person, SIGTERM and SIGUSR1 from whoever will start the run again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code of a run that Ctrl-C stopped."""
TRY_AGAIN = 75
"""Exit code of a run that SIGTERM or SIGUSR1 stopped before its end: EX_TEMPFAIL, which schedulers may requeue."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
SAME_REQUEST = 0.5
"""Seconds in which a second signal is the first one again: from the terminal, and passed on by a launcher."""


class Preempted(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 came while there was nothing to save yet."""


class Stop:
    """Whether training was asked to stop, and by which signal first."""

    number: int | None = None

    def __call__(self) -> bool:
        """Whether it was."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """What the command line ends with; 0 where nobody asked."""
        return 0 if self.number is None else exit_code(self.number)


def exit_code(number: int) -> int:
    """The exit code of a run that this signal stopped."""
    return INTERRUPTED if number == signal.SIGINT else TRY_AGAIN


@contextmanager
def stops_raised() -> Iterator[None]:
    """Signals raise `KeyboardInterrupt`, or `Preempted`, which is one: at once, and at the end if that was swallowed.

    Some libraries catch everything that they meet.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        raise _raised_by(number)

    # Other threads cannot set handlers, and a handler of the caller's holds.
    main = threading.current_thread() is threading.main_thread()
    free = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in SIGNALS if main and signal.getsignal(number) in free}
    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise _raised_by(asked[0])


def _raised_by(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Preempted()


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[Stop]:
    """Signals ask training to stop after the step; Ctrl-C after the first one stops at once.

    SIGTERM and SIGUSR1 are only asked for again: schedulers send both, one after the other, and a checkpoint may be
    half written by then.
    """
    stop, first = Stop(), 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if stop.number is None:
            stop.number, first = number, time.monotonic()
            say(f"{signal.Signals(number).name}: writing a checkpoint after this step (Ctrl-C to stop at once)")
        elif number == signal.SIGINT and time.monotonic() - first >= SAME_REQUEST:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; elsewhere the caller's own hold.
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
