"""Binding a recipe's tables to typed options, collecting every problem instead of stopping at the first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from datetime import date, time
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ebmkit.blame import blamed_on
from ebmkit.errors import PluginMissing, Problem
from ebmkit.interfaces import BaseOptions
from ebmkit.registry import Registry, article, suggest
from ebmkit.schedule_option import CONSTANT, takes_schedule

OptionsT = TypeVar("OptionsT", bound=BaseOptions)

_SHAPE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "literal_error": "{expected}",
    "is_instance_of": "a number or a schedule table such as {{ use = 'linear', start = 0.3, end = 0.0 }}",
}
"""What a value of another kind altogether should have been."""

_BOUND = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} item{s}",
    "too_long": "must have at most {max_length} item{s}",
    "int_parsing_size": "must fit into 64 bits, as in TOML",
    "string_too_short": "must have at least {min_length} character{s}",
    "string_too_long": "must have at most {max_length} character{s}",
    "missing": "is required",
    "value_error": "{error}",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,60}\Z")
_WITHOUT_VALUE = ("missing", "value_error")


def show(value: object, limit: int = 60) -> str:
    """A value as an error message quotes it: as TOML has it, on one line, never long."""
    text = _toml(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def quote(key: str) -> str:
    """A key as a dotted path names it: quoted, and never long, unless it is a plain word."""
    return key if _WORD.match(key) else show(key)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{quote(key)} = {_toml(item)}' for key, item in value.items())} }}" if value else "{}"
    if isinstance(value, int) and value.bit_length() > 1000:
        # Python refuses to write out numbers of thousands of digits.
        return "a number of hundreds of digits"
    return repr(value)


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

    def options(
        self, model: type[OptionsT], values: Mapping[str, Any], path: str, owner: type | None = None
    ) -> OptionsT | None:
        """The options that `values` give (of the component `owner`, if any), or None after noting what is wrong."""
        before = len(self.problems)
        bound: dict[str, Any] = {}
        for key, raw in values.items():
            field = model.model_fields.get(key)
            if field is None:
                self.complain(f"{path}.{quote(key)}", "unknown option" + suggest(key, model.model_fields))
                continue
            value = freeze(raw)
            if _no_literal(value, field.annotation):
                *others, last = map(_toml, get_args(field.annotation))
                choices = f"{', '.join(others)} or {last}" if others else last
                self.complain(f"{path}.{key}", f"must be {choices}, not {show(value)}")
                continue
            if takes_schedule(field) and (isinstance(value, Mapping) or _is_number(value)):
                value = self.schedule(value, f"{path}.{key}")
                if value is None:
                    continue
            bound[key] = value
        # Options of a plugin may have validators of their own.
        with nullcontext() if owner is None else blamed_on(owner, "the check of its options"):
            result = _validated(model, bound)
        if isinstance(result, ValidationError):
            # A key that was given and is not bound has had its complaint.
            self._translate(result, bound, path, skip=values.keys() - bound.keys())
            return None
        for key in bound:
            if _exceeds_64_bits(getattr(result, key)):
                self.complain(f"{path}.{key}", f"must fit into 64 bits, as in TOML, not {show(bound[key])}")
            elif _has_surrogates(getattr(result, key)):
                self.complain(f"{path}.{key}", f"must be text that UTF-8 can hold, not {show(bound[key])}")
        return result if len(self.problems) == before else None

    def component(self, kind: str, value: object, path: str) -> tuple[type, Any] | None:
        """The class that a table's `use` names and the options that its other keys give."""
        table = self.table(value, path)
        if table is None:
            return None
        use = table.pop("use", None)
        if not isinstance(use, str):
            names = ", ".join(self.registry.names(kind))
            fault = (
                f"needs `use`, the name of {article(kind)} {kind}" if use is None else f"must be text, not {show(use)}"
            )
            self.complain(path if use is None else f"{path}.use", f"{fault}; installed: {names}")
            return None
        try:
            component = self.registry.component(kind, use)
        except PluginMissing as error:
            self.complain(f"{path}.use", str(error))
            return None
        options = self.options(component.Options, table, path, component)
        return None if options is None else (component, options)

    def schedule(self, value: object, path: str) -> Any:
        """A schedule from a number or a table."""
        table = {"use": CONSTANT, "value": value} if _is_number(value) else value
        before = len(self.problems)
        found = self.component("schedule", table, path)
        if table is not value:
            # Who writes `noise = nan` knows of no `noise.value`.
            self.problems[before:] = [Problem(path, problem.message) for problem in self.problems[before:]]
        if found is None:
            return None
        with blamed_on(found[0], "its constructor"):
            return found[0](found[1])

    def _translate(self, error: ValidationError, bound: Mapping[str, Any], path: str, skip: Iterable[str]) -> None:
        by_field: dict[str, list[_Fault]] = {}
        for details in error.errors(include_url=False):
            fault = _locate(details, bound)
            by_field.setdefault(fault.path[0] if fault.path else "", []).append(fault)
        for name, faults in by_field.items():
            if name in skip:
                continue
            if len({fault.branch for fault in faults}) > 1:
                faults = _nearest_branch(faults)
            told = [(".".join((path, *fault.path)), _sentence(fault)) for fault in faults if not fault.only_follows]
            # Once: each item that an empty list lacks is a fault of its own to pydantic.
            for where, message in dict.fromkeys(told):
                self.complain(where, message)


def _validated(model: type[OptionsT], values: Mapping[str, Any]) -> OptionsT | ValidationError:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        return error


class _Fault(NamedTuple):
    """One of pydantic's errors: where in the user's table, in which branch of a union, what, and the value there."""

    path: tuple[str, ...]
    branch: str
    kind: str
    message: str
    value: object
    only_follows: bool = False
    """A list that is long enough, of which pydantic counts only the items without a fault of their own."""


def _locate(details: ErrorDetails, bound: Mapping[str, Any]) -> _Fault:
    """Pydantic mixes the branches of unions into locations; users never wrote those."""
    node: Any = bound
    path: list[str] = []
    branch = ""
    kind = details["type"]
    for depth, part in enumerate(details["loc"]):
        inside = part in node if isinstance(node, Mapping) else isinstance(node, tuple) and part in range(len(node))
        if inside:
            node = node[part]
        elif isinstance(part, int):
            # A list of fixed length that ends too early; its own place is the list's.
            return _Fault(tuple(path), branch, "", f"must have more than {len(node)} item{_s(len(node))}", node)
        elif depth:
            branch = branch or part
            continue
        path.append(str(part))
    context = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in details.get("ctx", {}).items()
    }
    number = context.get("min_length", context.get("max_length"))
    if kind == "float_type" and _is_number(node):
        message, kind = "must be a finite number", "finite_number"
    elif kind in _SHAPE:
        message = _SHAPE[kind].format(**context)
    elif kind in _BOUND:
        message = _BOUND[kind].format(**context, s=_s(number))
    else:
        # pydantic's own sentences: "Input should be a finite number"
        message = details["msg"].replace("Input should be", "must be").replace("should have", "must have")
    long_enough = kind == "too_short" and isinstance(node, tuple) and len(node) >= context["min_length"]
    return _Fault(tuple(path), branch, kind, message, node, long_enough)


def _nearest_branch(faults: list[_Fault]) -> list[_Fault]:
    """The faults of the one branch of a union that the value is meant for, or one fault that names all branches."""
    top = min((fault.path for fault in faults), key=len)
    foreign = {fault.branch for fault in faults if fault.path == top and fault.kind in _SHAPE}
    meant = {fault.branch for fault in faults} - foreign
    if len(meant) == 1:
        return [fault for fault in faults if fault.branch in meant]
    here = sorted((fault for fault in faults if fault.path == top), key=lambda fault: fault.kind != "literal_error")
    if any(fault.kind not in _SHAPE for fault in here):
        return here
    return [here[0]._replace(message=" or ".join(dict.fromkeys(fault.message for fault in here)))]


def _sentence(fault: _Fault) -> str:
    if fault.kind in _WITHOUT_VALUE:
        return fault.message
    return f"{'must be ' if fault.kind in _SHAPE else ''}{fault.message}, not {show(fault.value)}"


def _s(number: object) -> str:
    return "" if number == 1 else "s"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _exceeds_64_bits(value: object) -> bool:
    """TOML has no such whole numbers; a recipe with one could not be read again."""
    if isinstance(value, tuple | Mapping):
        return any(map(_exceeds_64_bits, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _has_surrogates(value: object) -> bool:
    """Bytes of the command line that are no UTF-8 become such characters, and no file could take them."""
    if isinstance(value, tuple | Mapping):
        items = [*value, *value.values()] if isinstance(value, Mapping) else value
        return any(map(_has_surrogates, items))
    return isinstance(value, str) and _SURROGATE.search(value) is not None


def _no_literal(value: object, annotation: Any) -> bool:
    """Pydantic takes `true` and 1.0 for a literal 1, and has words of its own for numbers of more than 64 bits."""
    if get_origin(annotation) is not Literal or not isinstance(value, bool | int | float):
        return False
    return all(value != choice or type(value) is not type(choice) for choice in get_args(annotation))
