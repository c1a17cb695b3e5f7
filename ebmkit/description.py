"""What there is to know of a component without reading its source."""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ebmkit.interfaces import Schedule
from ebmkit.plugins import Registered
from ebmkit.schedule_option import to_plain

REQUIRED = "required"


@dataclass(frozen=True)
class OptionDescription:
    """One option: its type in recipe terms, default, bounds and meaning."""

    name: str
    type: str
    default: Any
    required: bool
    bounds: str
    description: str


@dataclass(frozen=True)
class Description:
    """A component's origin, docstring and options."""

    kind: str
    name: str
    distribution: str
    version: str
    plugin: str
    summary: str
    options: tuple[OptionDescription, ...]


def describe_component(item: Registered) -> Description:
    """The description of a registered component."""
    fields = item.component.Options.model_fields  # type: ignore[attr-defined]
    return Description(
        item.kind,
        item.name,
        item.distribution,
        item.version,
        item.plugin,
        inspect.getdoc(item.component) or "",
        tuple(describe_option(name, field) for name, field in fields.items()),
    )


def describe_option(name: str, field: FieldInfo) -> OptionDescription:
    """One option in the terms of a recipe."""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(default, Schedule):
        default = to_plain(default)
    kind, inner = _type(field.annotation)
    bounds = ", ".join(dict.fromkeys([*_bounds(field.metadata), *inner]))
    return OptionDescription(name, kind, default, field.is_required(), bounds, field.description or "")


_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", types.NoneType: "none"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "at least", "max_length": "at most"}


def _type(annotation: Any) -> tuple[str, list[str]]:
    """A type as recipe writers know it, and the bounds that its parts carry."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _NAMES:
        return _NAMES[annotation], []
    if isinstance(annotation, type) and issubclass(annotation, Schedule):
        return "number or schedule", []
    if origin is Literal:
        return " | ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in arguments), []
    if origin is Annotated:
        kind, bounds = _type(arguments[0])
        return kind, [*_bounds(arguments[1:]), *bounds]
    if origin in (Union, types.UnionType):
        parts = [_type(argument) for argument in arguments]
        return " | ".join(kind for kind, _ in parts), [bound for _, bounds in parts for bound in bounds]
    if origin is dict:
        return "table", []
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            kind, bounds = _type(arguments[0])
            return f"list of {kind}", bounds
        parts = [_type(argument) for argument in arguments]
        return "[" + ", ".join(kind for kind, _ in parts) + "]", [bound for _, bounds in parts for bound in bounds]
    return getattr(annotation, "__name__", str(annotation)), []


def _bounds(metadata: Any) -> list[str]:
    found = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            found += _bounds(item.metadata)
        for key, sign in _SIGNS.items():
            value = getattr(item, key, None)
            if value is not None and not callable(value):
                found.append(f"{sign} {value}" + (" long" if "length" in key else ""))
    return found
