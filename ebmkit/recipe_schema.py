"""The JSON Schema of a recipe, for editors: keys, types, bounds and descriptions of all installed parts."""

from __future__ import annotations

from typing import Any

from ebmkit.interfaces import BaseOptions
from ebmkit.plugins import Registered
from ebmkit.recipe import LISTS, MAX_SEED, MAX_TIME_STEPS, PARTS, SECTIONS
from ebmkit.registry import Registry
from ebmkit.schedule_option import SCHEDULE_TABLE


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """A JSON Schema (2020-12) that accepts the recipes of these components."""
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
        found = [_part(item) for item in registry if item.kind == kind and not registry.is_ambiguous(kind, item.name)]
        definitions[kind] = {"oneOf": found}
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


def _part(item: Registered) -> dict[str, Any]:
    component: Any = item.component
    schema = _options(component.Options)
    schema["title"] = f"{item.kind} {item.name}"
    schema["description"] = (component.__doc__ or "").split("\n")[0]
    schema["properties"] = {"use": {"const": item.name}, **schema.get("properties", {})}
    schema["required"] = ["use", *schema.get("required", [])]
    return schema


def _options(model: type[BaseOptions]) -> dict[str, Any]:
    schema: dict[str, Any] = _with_schedules(model.model_json_schema())
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
