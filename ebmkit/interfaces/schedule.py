"""The interface of schedules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import Any, ClassVar

from ebmkit.interfaces.base import BaseOptions


class Schedule(ABC):
    """A pure function of progress, so that a resumed run needs no state of it. Built from its options alone."""

    kind: ClassVar[str] = "schedule"
    name: ClassVar[str]

    class Options(BaseOptions):
        """No options."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Whatever real number `__call__` gives becomes a float: integers and numpy's numbers stand in no state."""
        super().__init_subclass__(**keywords)
        if "__call__" in vars(cls):
            cls.__call__ = _giving_float(cls.__call__)  # type: ignore[assignment]

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """The value at `progress` in [0, 1]: 0 at the start, 1 at the end. Any finite real number; callers get a float.

        A sampler's progress is 1 at the very last step of a sweep; training's is the share of `train.steps` done.
        """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.options == other.options

    def __hash__(self) -> int:
        return hash((type(self), self.options))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.options!r})"


def _giving_float(call: Callable[[Any, float], Any]) -> Callable[[Any, float], Any]:
    @wraps(call)
    def wrapped(self: Any, progress: float) -> Any:
        value = call(self, progress)
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value

    return wrapped
