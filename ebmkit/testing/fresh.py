"""A plugin's module as a new process has it: executed anew, with nothing left of an earlier run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def executed_anew(module: ModuleType) -> ModuleType:
    """The module once more, from its source, its submodules too; itself where it cannot be executed twice.

    Within `modules_given_back`, since `sys.modules` has the new ones from then on: hooks import late.
    """
    spec = module.__spec__
    if spec is None or spec.loader is None or sys.modules.get(module.__name__) is None:
        return module
    before = _take(module.__name__)
    try:
        new = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = new
        spec.loader.exec_module(new)
    except Exception:  # noqa: BLE001 - some modules may be executed once only, and nothing is wrong with them
        _take(module.__name__)
        sys.modules.update(before)
        return module
    return new


@contextmanager
def modules_given_back(module: ModuleType | None) -> Iterator[None]:
    """At the end `sys.modules` has the module and the submodules that it had at the begin."""
    before = {} if module is None else {name: sys.modules[name] for name in _names(module.__name__)}
    try:
        yield
    finally:
        if module is not None:
            _take(module.__name__)
            sys.modules.update(before)


def _take(name: str) -> dict[str, ModuleType]:
    return {own: sys.modules.pop(own) for own in _names(name)}


def _names(name: str) -> list[str]:
    return [own for own in sys.modules if own == name or own.startswith(f"{name}.")]
