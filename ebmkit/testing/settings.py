"""Which options of which component the assignments of `ebmkit check-plugin --set` mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ebmkit.binder import Binder
from ebmkit.errors import BadInput, Problem, RecipeError
from ebmkit.interfaces import KINDS
from ebmkit.plugins import Registered
from ebmkit.registry import Registry, suggest

Options = dict[str, Any]


def options_of(
    components: Iterable[Registered], assignments: Mapping[str, Any], registry: Registry
) -> dict[type, Options]:
    """The options to test each component with, from keys `OPTION` or `KIND.NAME.OPTION`; raises `BadInput`."""
    components = list(components)
    found: dict[type, Options] = {}
    for key, value in assignments.items():
        item, option = _meant(key, components)
        found.setdefault(item.component, {})[option] = value
    problems = [
        problem
        for item in components
        if item.component in found
        for problem in _problems(item, found[item.component], registry)
    ]
    if problems:
        raise RecipeError("--set", problems)
    return found


def _meant(key: str, components: list[Registered]) -> tuple[Registered, str]:
    *place, option = key.split(".")
    if place and (len(place) != 2 or place[0] not in KINDS):
        raise BadInput(f"--set {key}: write OPTION=VALUE, or KIND.NAME.OPTION=VALUE for one of several components")
    chosen = [item for item in components if not place or place == [item.kind, item.name]]
    if not chosen:
        names = [f"{item.kind}.{item.name}" for item in components]
        hint = suggest(".".join(place), names) or f"; it has {', '.join(names) or 'none'}"
        raise BadInput(f"--set {key}: the plugin has no component {'.'.join(place) or 'with options'}{hint}")
    having = [item for item in chosen if option in _fields(item)]
    if not having:
        known = sorted({name for item in chosen for name in _fields(item)})
        hint = suggest(option, known) or f"; options: {', '.join(known) or 'none'}"
        raise BadInput(f"--set {key}: there is no option '{option}'{hint}")
    if len(having) > 1:
        ways = " or ".join(f"{item.kind}.{item.name}.{option}" for item in having)
        raise BadInput(f"--set {key}: {len(having)} components have this option; write {ways}")
    return having[0], option


def _problems(item: Registered, given: Options, registry: Registry) -> list[Problem]:
    """What is wrong with the given options alone; that of the plugin's own is for the rules to say."""
    examples = {
        name: field.examples[0] for name, field in _fields(item).items() if field.is_required() and field.examples
    }

    def bound(options: Options) -> list[Problem]:
        binder = Binder(registry)
        binder.options(item.component.Options, options, f"{item.kind}.{item.name}")  # type: ignore[attr-defined]
        return binder.problems

    own = bound(examples)
    return [problem for problem in bound(examples | given) if problem not in own]


def _fields(item: Registered) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = item.component.Options.model_fields  # type: ignore[attr-defined]
    return fields
