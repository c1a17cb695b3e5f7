"""How a broken class says which rule must find it, and in which words."""

from __future__ import annotations

from typing import Any, NamedTuple


class Fault(NamedTuple):
    """A broken class, the rule that it breaks, and a part of the message."""

    component: type[Any]
    rule: str
    message: str


FAULTS: list[Fault] = []


def breaks(rule: str, message: str) -> Any:
    """Mark a class as breaking this rule."""

    def mark(component: type[Any]) -> type[Any]:
        FAULTS.append(Fault(component, rule, message))
        return component

    return mark
