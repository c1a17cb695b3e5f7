"""Whose fault an error is: what goes wrong in a component is told with its name and where it came from."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from ebmkit.errors import ComponentFailed, EbmkitError
from ebmkit.plugins import Origin, Registered, told


class blamed_on:
    """`with blamed_on(component, "penalty()")`: an error in the block becomes a `ComponentFailed` that names both.

    `component` is an object or its class. Left alone are an `EbmkitError`, which says what it has to say, memory that
    has run out, which is nobody's fault, and Ctrl-C. Names are looked up only then: a step takes as long as without.
    """

    __slots__ = ("component", "what")

    def __init__(self, component: Any, what: str) -> None:
        self.component, self.what = component, what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception | SystemExit) and not _passes(error):
            label, place = label_of(self.component), _place(error, self.component)
            raise ComponentFailed(f"{label}: {self.what} raised {told(error)}{place}") from error


def wrong(component: Any, message: str) -> ComponentFailed:
    """The error to raise where a component gave back something that its interface does not allow."""
    return ComponentFailed(f"{label_of(component)}: {message}")


def label_of(component: Any) -> str:
    """`regularizer 'r1' (ebmkit-r1 0.1.0)`; a class that no plugin provides is named with its module."""
    owner = _class(component)
    found = _registered(owner)
    if found is not None:
        return found.label
    return f"{getattr(owner, 'kind', 'component')} '{getattr(owner, 'name', owner.__name__)}' ({owner.__module__})"


def _class(component: Any) -> type[Any]:
    owner: type[Any] = component if isinstance(component, type) else type(component)
    return owner


def _registered(owner: type[Any]) -> Registered | None:
    from ebmkit.registry import default_registry

    return next((item for item in default_registry() if item.component is owner), None)


def _passes(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    return isinstance(error, EbmkitError | MemoryError) or (
        torch is not None and isinstance(error, torch.OutOfMemoryError)
    )


def _place(error: BaseException, component: Any) -> str:
    """Where in the code of a plugin the error arose, and in which one if it is not the component's own."""
    own = _package(_class(component).__module__)
    plugins = {own: None, **{name: plugin for name, plugin in _packages().items() if name != own}}
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = _package(frame.f_globals.get("__name__", ""))
        if package in plugins:
            other = plugins[package]
            whose = "" if other is None else f", in plugin {other.label}"
            return f" ({Path(frame.f_code.co_filename).name}, line {line}{whose})"
    return ""


def _packages() -> dict[str, Origin]:
    from ebmkit.registry import default_registry

    return {_package(plugin.module.__name__): plugin for plugin in default_registry().loaded}


def _package(module: str) -> str:
    return module.partition(".")[0]
