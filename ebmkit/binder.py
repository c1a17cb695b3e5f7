"""Binding a recipe's tables to typed options, collecting every problem instead of stopping at the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ebmkit.errors import PluginMissing, Problem
from ebmkit.interfaces import BaseOptions
from ebmkit.registry import Registry, suggest
from ebmkit.schedule_option import CONSTANT, takes_schedule

OptionsT = TypeVar("OptionsT", bound=BaseOptions)

_EXPECTED = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "is_instance_of": "must be a number or a schedule table such as { use = 'linear', start = 0.3, end = 0.0 }",
}


def show(value: object, limit: int = 60) -> str:
    """A value as an error message quotes it: one line, never long."""
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def freeze(value: Any) -> Any:
    """TOML arrays as tuples, all the way down: options are immutable."""
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, Mapping):
        return {key: freeze(item) for key, item in value.items()}
    return value


class Binder:
    """Turns tables into options and keeps the `problems` that it meets."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.problems: list[Problem] = []

    def complain(self, path: str, message: str) -> None:
        """Note a problem at a dotted path."""
        self.problems.append(Problem(path, message))

    def table(self, value: object, path: str) -> dict[str, Any] | None:
        """`value` if it is a table; else a problem and None."""
        if isinstance(value, Mapping):
            return dict(value)
        self.complain(path, f"must be a table, not {show(value)}")
        return None

    def options(self, model: type[OptionsT], values: Mapping[str, Any], path: str) -> OptionsT | None:
        """The options that `values` give, or None after noting what is wrong with them."""
        before = len(self.problems)
        bound: dict[str, Any] = {}
        for key, raw in values.items():
            field = model.model_fields.get(key)
            if field is None:
                self.complain(f"{path}.{key}", "unknown option" + suggest(key, model.model_fields))
                continue
            value = freeze(raw)
            if takes_schedule(field) and (isinstance(value, Mapping) or _is_number(value)):
                value = self.schedule(value, f"{path}.{key}")
                if value is None:
                    continue
            bound[key] = value
        broken = {problem.path.removeprefix(f"{path}.").split(".")[0] for problem in self.problems[before:]}
        try:
            result = model.model_validate(bound)
        except ValidationError as error:
            self._translate(error, model, path, skip=broken)
            return None
        return result if len(self.problems) == before else None

    def component(self, kind: str, value: object, path: str) -> tuple[type, Any] | None:
        """The class that a table's `use` names and the options that its other keys give."""
        table = self.table(value, path)
        if table is None:
            return None
        use = table.pop("use", None)
        if not isinstance(use, str):
            names = ", ".join(self.registry.names(kind))
            fault = f"needs `use`, the name of a {kind}" if use is None else f"must be text, not {show(use)}"
            self.complain(path if use is None else f"{path}.use", f"{fault}; installed: {names}")
            return None
        try:
            component = self.registry.component(kind, use)
        except PluginMissing as error:
            self.complain(f"{path}.use", str(error))
            return None
        options = self.options(component.Options, table, path)
        return None if options is None else (component, options)

    def schedule(self, value: object, path: str) -> Any:
        """A schedule from a number or a table."""
        found = self.component("schedule", {"use": CONSTANT, "value": value} if _is_number(value) else value, path)
        return None if found is None else found[0](found[1])

    def _translate(self, error: ValidationError, model: type[BaseOptions], path: str, skip: set[str]) -> None:
        by_field: dict[str, list[ErrorDetails]] = {}
        for details in error.errors(include_url=False):
            by_field.setdefault(str(details["loc"][0]) if details["loc"] else "", []).append(details)
        for name, found in by_field.items():
            if name in skip:
                continue
            where = f"{path}.{name}" if name else path
            field = model.model_fields.get(name)
            choices = [_message(details) for details in found]
            if field is not None and len(found) > 1 and _is_union(found):
                self.complain(where, f"{' or '.join(dict.fromkeys(choices))}, not {show(_input(found, field))}")
                continue
            for details, message in zip(found, choices, strict=True):
                inner = ".".join(str(part) for part in details["loc"] if not _is_tag(part))
                missing = details["type"] == "missing"
                self.complain(
                    f"{path}.{inner}" if inner else path,
                    message
                    if missing or details["type"] == "value_error"
                    else f"{message}, not {show(details['input'])}",
                )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_tag(part: int | str) -> bool:
    """Pydantic puts the name of a union's branch into the location; users never wrote it."""
    return isinstance(part, str) and not part.isidentifier()


def _is_union(found: list[ErrorDetails]) -> bool:
    return any(len(details["loc"]) > 1 and isinstance(details["loc"][1], str) for details in found)


def _input(found: list[ErrorDetails], field: FieldInfo) -> object:
    return min(found, key=lambda details: len(details["loc"]))["input"]


def _message(details: ErrorDetails) -> str:
    kind = details["type"]
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(details["ctx"]["error"])
    # pydantic's own sentences: "Input should be greater than 0"
    return details["msg"].replace("Input should be", "must be").replace("should have", "must have")
