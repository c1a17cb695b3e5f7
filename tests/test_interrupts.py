"""Requests to stop before training begins, however much the code that they meet catches; and while it trains."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable

import pytest

from ebmkit import stopping
from ebmkit.stopping import SIGNALS, Preempted, listening


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    # A handler runs between two steps of the interpreter.
    threading.Event().wait(0.2)


def swallowing(number: int) -> None:
    with listening() as stop:
        # What such libraries do.
        with contextlib.suppress(BaseException):
            send(number)
        with stop.after_step(print):
            raise AssertionError("went on")


def passing_on(number: int) -> None:
    with listening():
        send(number)
        raise AssertionError("went on")


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Preempted), (signal.SIGUSR1, Preempted)],
)
@pytest.mark.parametrize("work", [swallowing, passing_on])
def test_a_request_comes_through_whatever_a_library_does(
    work: Callable[[int], None], number: int, raised: type[BaseException]
) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(raised):
        work(number)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_only_ctrl_c_is_heard_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(stopping, "SAME_REQUEST", 0.0)
    with listening() as stop, stop.after_step(told.append):
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            send(number)
        assert (stop.number, stop.exit_code) == (signal.SIGUSR1, 75)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert told == ["SIGUSR1: writing a checkpoint after this step (Ctrl-C to stop at once)"]


def test_the_callers_own_handler_holds() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with listening():
            send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
