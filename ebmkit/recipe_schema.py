"""The JSON Schema of a recipe, for editors: keys, types, bounds and descriptions of all installed parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ebmkit.blame import blamed_on
from ebmkit.errors import ComponentFailed
from ebmkit.interfaces import BaseOptions
from ebmkit.plugins import Registered
from ebmkit.recipe import LISTS, MAX_SEED, MAX_TIME_STEPS, PARTS, SECTIONS
from ebmkit.registry import Registry
from ebmkit.schedule_option import SCHEDULE_TABLE


def recipe_schema(registry: Registry, warn: Callable[[str], None]) -> dict[str, Any]:
    """A JSON Schema (2020-12) that accepts the recipes of these components; `warn` is told of those without one."""
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {
        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0},
        "time_steps": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_TIME_STEPS,
            "description": "T: time steps of a sweep.",
        },
    }
    for key, model in SECTIONS.items():
        properties[key] = _options(model)
    for kind in (*LISTS.values(), "schedule", *PARTS):
        # A name that two plugins claim is no name that a recipe can use.
        found = [item for item in registry if item.kind == kind and not registry.is_ambiguous(kind, item.name)]
        definitions[kind] = {"oneOf": [part for item in found if (part := _part(item, definitions, warn))]}
    properties |= {kind: {"$ref": f"#/$defs/{kind}"} for kind in PARTS}
    properties |= {key: {"type": "array", "items": {"$ref": f"#/$defs/{kind}"}} for key, kind in LISTS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ebmkit recipe",
        "type": "object",
        "properties": properties,
        "required": ["time_steps", "data", "train", *PARTS],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _part(item: Registered, definitions: dict[str, Any], warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The schema of a component, or None; what it refers to is added to `definitions`."""
    component: Any = item.component
    own = f"{item.kind}.{item.name}."
    try:
        # Options may be of any type, and not every type has a schema.
        with blamed_on(component, "the JSON Schema of its options"):
            schema = _options(component.Options, f"#/$defs/{own}{{model}}")
    except ComponentFailed as error:
        warn(f"{error}; it is left out of the schema")
        return None
    definitions |= {own + name: node for name, node in schema.pop("$defs", {}).items()}
    schema["title"] = f"{item.kind} {item.name}"
    schema["description"] = (component.__doc__ or "").split("\n")[0]
    schema["properties"] = {"use": {"const": item.name}, **schema.get("properties", {})}
    schema["required"] = ["use", *schema.get("required", [])]
    return schema


def _options(model: type[BaseOptions], references: str = "#/$defs/{model}") -> dict[str, Any]:
    schema: dict[str, Any] = _with_schedules(model.model_json_schema(ref_template=references))
    return schema


def _with_schedules(node: Any) -> Any:
    """The schema with a reference to the recipe's own definition wherever a schedule may stand."""
    if node == SCHEDULE_TABLE:
        return {"$ref": "#/$defs/schedule"}
    if isinstance(node, dict):
        return {key: _with_schedules(item) for key, item in node.items()}
    if isinstance(node, list):
        return [_with_schedules(item) for item in node]
    return node
