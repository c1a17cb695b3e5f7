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
    """Whether training was asked to stop, and by which signal first.

    Until training begins, signals raise `KeyboardInterrupt`, or `Preempted`, which is one.
    """

    number: int | None = None

    def __init__(self) -> None:
        self._first = 0.0
        self._say: Callable[[str], None] | None = None

    def __call__(self) -> bool:
        """Whether it was."""
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """What the command line ends with; 0 where nobody asked."""
        return 0 if self.number is None else exit_code(self.number)

    @contextmanager
    def after_step(self, say: Callable[[str], None]) -> Iterator[None]:
        """From here on, signals ask training to stop after the step; Ctrl-C after the first one stops at once.

        SIGTERM and SIGUSR1 are not heard twice: schedulers send both, one after the other, and a checkpoint may be half
        written by then.
        """
        if self.number is not None:
            # It was raised; but some libraries catch everything that they meet.
            raise _raised_by(self.number)
        self._say = say
        try:
            yield
        finally:
            self._say = _nobody

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of `SIGNALS`."""
        if self._say is None:
            self.number = number
            raise _raised_by(number)
        if self.number is None:
            self.number, self._first = number, time.monotonic()
            self._say(f"{signal.Signals(number).name}: writing a checkpoint after this step (Ctrl-C to stop at once)")
        elif number == signal.SIGINT and time.monotonic() - self._first >= SAME_REQUEST:
            raise KeyboardInterrupt


def exit_code(number: int) -> int:
    """The exit code of a run that this signal stopped."""
    return INTERRUPTED if number == signal.SIGINT else TRY_AGAIN


@contextmanager
def listening(to_the_end: bool = False) -> Iterator[Stop]:
    """Hear `SIGNALS`, but for those for which the caller has a handler.

    With `to_the_end` a process that was asked to stop is deaf to further requests while Python ends.
    """
    stop, before = Stop(), {}
    # Other threads cannot set handlers.
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler in _FREE}
    try:
        for number in before:
            signal.signal(number, stop.hear)
        yield stop
    finally:
        if not (to_the_end and stop()):
            for number, handler in before.items():
                signal.signal(number, handler)


_FREE = (signal.SIG_DFL, signal.default_int_handler)


def _raised_by(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Preempted()


def _nobody(message: str) -> None:
    pass
