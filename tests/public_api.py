"""The public interface as text: every public name of ebmkit with its signature, fields and methods."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import ebmkit
from ebmkit import hookspecs

MODULES = ("ebmkit", "ebmkit.errors", "ebmkit.layers", "ebmkit.noise", "ebmkit.reachability", "ebmkit.testing")
"""What a plugin may import; import-linter holds the first-party ones to it."""


def public_api() -> str:
    """All of it, in a fixed order."""
    lines = [f"PLUGIN_API = {ebmkit.PLUGIN_API}", "", "# hooks"]
    lines += [f"{name}{_signature(getattr(hookspecs, name))}" for name in hookspecs.HOOKS]
    seen: set[int] = set()
    for name in MODULES:
        module = importlib.import_module(name)
        lines += ["", f"# {name}"]
        for public in sorted(_names(module)):
            value = getattr(module, public)
            if id(value) in seen and not isinstance(value, str | int | float):
                continue
            seen.add(id(value))
            lines += _lines(public, value)
    return "\n".join(lines) + "\n"


def _names(module: Any) -> list[str]:
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    constants = [name for name, value in vars(module).items() if name.isupper() and isinstance(value, int | float)]
    return [name for name in (*own, *constants) if not name.startswith("_")]


def _lines(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {name}({bases})"
        for line in _members(value):
            yield f"    {line}"
    elif inspect.isfunction(value):
        yield f"{name}{_signature(value)}"
    elif isinstance(value, int | float | str | tuple):
        yield f"{name} = {value!r}"
    else:
        yield name


def _members(owner: type) -> Iterator[str]:
    for name, annotation in vars(owner).get("__annotations__", {}).items():
        if not name.startswith("_"):
            written = getattr(annotation, "__forward_arg__", annotation)
            yield f"{name}: {written}{' = ...' if _has_default(owner, name) else ''}"
    for name, member in sorted(vars(owner).items()):
        if name.startswith("_") and name not in ("__init__", "__call__"):
            continue
        mark = "abstract " if getattr(member, "__isabstractmethod__", False) else ""
        if isinstance(member, property) and member.fget is not None:
            yield f"{mark}property {name}{_signature(member.fget)}"
        elif isinstance(member, classmethod):
            yield f"{mark}classmethod {name}{_signature(member.__func__)}"
        elif inspect.isfunction(member) and member.__module__.startswith("ebmkit") and not name.startswith("test_"):
            # The rules of a contract (`test_`) may grow; what they rest on may not change.
            yield f"{mark}{name}{_signature(member)}"


def _has_default(owner: Any, name: str) -> bool:
    if dataclasses.is_dataclass(owner):
        field = owner.__dataclass_fields__[name]
        return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    return name in getattr(owner, "_field_defaults", vars(owner))


def _signature(function: Any) -> str:
    """The signature as it is written; defaults that are objects are only said to be there."""
    parameters = []
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        default = parameter.default
        if default is not parameter.empty and not isinstance(default, int | float | str | type(None)):
            parameter = parameter.replace(default=...)
        parameters.append(parameter)
    return str(signature.replace(parameters=parameters)).replace("'", "").replace("Ellipsis", "...")
