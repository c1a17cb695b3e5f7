"""The type of options that may change with progress: a number, or a table that names a schedule."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BeforeValidator, InstanceOf, PlainSerializer, WithJsonSchema
from pydantic.fields import FieldInfo

from ebmkit.errors import PluginMissing
from ebmkit.interfaces import Schedule

CONSTANT = "constant"
SCHEDULE_TABLE = {"title": "schedule table"}
"""Stands in an option's JSON Schema for any schedule; pydantic refuses a `$ref` to what it does not know."""


def _from_plain(value: object) -> object:
    """Numbers and tables become schedules, so that `Options(noise=0.1)` also works in Python."""
    from ebmkit.registry import default_registry

    if isinstance(value, Mapping):
        table = dict(value)
        use = table.pop("use", None)
        try:
            component = default_registry().component("schedule", str(use))
        except PluginMissing as error:
            raise ValueError(str(error)) from error
        return component(component.Options(**table))
    if isinstance(value, int | float) and not isinstance(value, bool):
        component = default_registry().component("schedule", CONSTANT)
        return component(component.Options(value=value))
    return value


def to_plain(schedule: Schedule) -> Any:
    """What stands in a recipe for this schedule: a number if it is constant, else a table with `use`."""
    options = schedule.options.model_dump(mode="json")
    if schedule.name == CONSTANT:
        return options["value"]
    # TOML has no null; what is left out is None again when the table is read.
    return {"use": schedule.name, **{key: value for key, value in options.items() if value is not None}}


ScheduleOption = Annotated[
    InstanceOf[Schedule],
    BeforeValidator(_from_plain),
    PlainSerializer(to_plain),
    WithJsonSchema({"anyOf": [{"type": "number"}, SCHEDULE_TABLE]}),
]
"""A number (constant) or `{ use = "linear", start = 0.3, end = 0.0 }`; the value of the option is a `Schedule`."""


def takes_schedule(field: FieldInfo) -> bool:
    """Whether this option accepts a schedule, alone or as one of several types."""
    return _mentions_schedule(field.annotation)


def _mentions_schedule(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Schedule):
        return True
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return any(_mentions_schedule(a) for a in get_args(annotation))
    return False
