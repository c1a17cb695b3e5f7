"""Ctrl-C before training begins, however much the code that it meets catches."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from ebmkit.stopping import stops_raised


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    # A handler runs between two steps of the interpreter.
    threading.Event().wait(0.2)


def swallowing() -> None:
    with stops_raised():
        try:
            press_ctrl_c()
        except BaseException:  # noqa: BLE001 - what such libraries do
            return


def passing_on() -> None:
    with stops_raised():
        press_ctrl_c()
        raise AssertionError("went on")


@pytest.mark.parametrize("work", [swallowing, passing_on])
def test_an_interrupt_comes_through_whatever_a_library_does(work: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_callers_own_handler_holds() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with stops_raised():
            press_ctrl_c()
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
