"""What the tests of recipes share: a small table that binds, and strategies for tables, right and wrong ones."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from ebmkit import BaseOptions, Schedule
from ebmkit.data.schemes import unopened
from ebmkit.recipe import KEYS, SECTIONS
from ebmkit.registry import default_registry

VALID: dict[str, Any] = {
    "time_steps": 4,
    "data": {"shards": ["a.tar", "b.tar"], "image_size": [8, 16], "channels": 1, "workers": 0},
    "energy": {"use": "unet", "channels": 8, "channel_multipliers": [1, 2]},
    "sampler": {"use": "langevin", "steps": 2, "noise": {"use": "linear", "start": 0.1}, "clamp": 2.0},
    "buffer": {"use": "cyclic", "size": 40},
    "objective": {"use": "contrastive_divergence"},
    "regularizers": [{"use": "wgan_lp", "weight": 20.0}, {"use": "spectral_norm"}],
    "optimizer": {"learning_rate": {"use": "cosine_restarts", "start": 1e-3, "cycles": 2}, "betas": [0.5, 0.9]},
    "train": {"steps": 6, "batch_size": 8},
}
"""A recipe's table that binds; never changed in place."""

COMPONENTS: list[Any] = [item.component for item in default_registry()]
WORDS = sorted(
    {*KEYS, "use"}
    | {key for model in SECTIONS.values() for key in model.model_fields}
    | {key for component in COMPONENTS for key in component.Options.model_fields}
)
NAMES = sorted({component.name for component in COMPONENTS} | {"auto", "sample", "silu", "device", "off", "zzz", "1"})

SCALARS = (
    st.integers(-3, 20)
    | st.sampled_from([0.0, 0.5, 1.0, 1e-3, 1e300, float("nan"), float("inf"), 2**62, 2**64, -(2**70), 10**400])
    | st.booleans()
    | st.sampled_from(NAMES)
    | st.text(max_size=8)
    | st.dates()
    | st.floats()
)
KEY = st.sampled_from(WORDS) | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=4), max_leaves=8
)
"""Any TOML value, with a liking for the words that recipes have."""


DEPENDENT = ("downsample",)
"""Options that are right or wrong only together with others."""


def curves(values: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Any]:
    """Schedules as recipes write them: right ones, or with these values for their options."""
    schedules = [component for component in COMPONENTS if issubclass(component, Schedule)]
    tables = [part(component, values) for component in schedules]
    return st.one_of(st.floats(0, 1) if values is None else values, *tables)


def part(component: Any, values: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """A part's table: right values of its options, or these."""
    return options(component.Options, values).map(lambda table: {"use": component.name, **table})


def options(
    model: type[BaseOptions], values: st.SearchStrategy[Any] | None = None
) -> st.SearchStrategy[dict[str, Any]]:
    """A table of options: right values, or these."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for key, field in model.model_fields.items():
        if values is not None:
            fields[key] = values
        elif key not in DEPENDENT:
            fields[key] = right(field)
    required = {key: fields.pop(key) for key, field in model.model_fields.items() if field.is_required()}
    return st.fixed_dictionaries(required, optional=fields)


def right(field: FieldInfo) -> st.SearchStrategy[Any]:
    """Values that an option accepts."""
    if field.annotation == dict[str, bool | int | float | str]:
        return tables_of(st.booleans() | st.integers(0, 9) | st.text(max_size=3))
    if field.annotation == dict[str, Any]:
        # DeepSpeed's configuration.
        plain = st.booleans() | st.integers(0, 9) | st.text(max_size=3) | st.floats(-1, 1)
        inner = st.recursive(plain, lambda some: st.lists(some, max_size=2) | tables_of(some), max_leaves=4)
        return tables_of(inner)
    return _of_type(field.annotation, field.metadata)


def tables_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Small tables."""
    return st.dictionaries(st.text("xyz", min_size=1, max_size=4), values, max_size=3)


def _of_type(annotation: Any, constraints: list[Any]) -> st.SearchStrategy[Any]:
    if isinstance(annotation, type) and issubclass(annotation, Schedule):
        return st.deferred(curves)
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _of_type(arguments[0], [*constraints, *annotation.__metadata__])
    if get_origin(annotation) in (Union, types.UnionType):
        # TOML has no null.
        return st.one_of([_of_type(argument, constraints) for argument in arguments if argument is not type(None)])
    if get_origin(annotation) is tuple and arguments[-1] is not Ellipsis:
        return st.tuples(*(_of_type(argument, []) for argument in arguments)).map(list)
    if get_origin(annotation) is tuple:
        sizes = {
            name: getattr(c, name)
            for c in _flat(constraints)
            for name in ("min_length", "max_length")
            if hasattr(c, name)
        }
        low, high = sizes.get("min_length", 0), sizes.get("max_length", 5)
        return st.lists(_of_type(arguments[0], []), min_size=low, max_size=min(high, low + 3))
    flat = _flat(constraints)
    if annotation is float and not any(isinstance(c, Ge | Gt) for c in flat):
        flat.append(Ge(-1e6))
    if annotation in (int, float) and not any(isinstance(c, Le) or hasattr(c, "lt") for c in flat):
        flat.append(Le(10**6))
    return st.from_type(Annotated[annotation, *flat] if flat else annotation)  # type: ignore[arg-type]


def _flat(constraints: list[Any]) -> list[Any]:
    return [inner for c in constraints for inner in (_flat(c.metadata) if isinstance(c, FieldInfo) else [c])]


def right_tables() -> st.SearchStrategy[dict[str, Any]]:
    """Whole recipes that bind, of any components and any values of their options."""
    of_kind = {
        kind: st.one_of([part(component) for component in COMPONENTS if component.kind == kind])
        for kind in ("energy", "sampler", "buffer", "objective", "regularizer")
    }
    regularizers = st.lists(of_kind.pop("regularizer"), max_size=2)
    sections = {key: options(model) for key, model in SECTIONS.items()}
    whole = {"seed": st.integers(0, 2**63 - 1), "time_steps": st.integers(1, 100_000), "regularizers": regularizers}
    return st.fixed_dictionaries({**whole, **sections, **of_kind}).filter(_opened)


def _opened(table: dict[str, Any]) -> bool:
    """Any text is a path, but one that begins as a URL of an unknown kind: "A0:" is refused."""
    shards = table["data"]["shards"]
    return not any(map(unopened, [shards] if isinstance(shards, str) else shards))


def places(table: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a nested table."""
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """`VALID` with some keys deleted, added or given other values."""
    table = copy.deepcopy(VALID)
    anything = VALUES | curves(SCALARS)
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(sorted(places(table), key=repr)))
        node: Any = table
        for key in parents:
            node = node[key]
        change = draw(st.sampled_from(["replace", "delete", "add"]))
        if change == "delete":
            del node[last]
        elif change == "add" and isinstance(node[last], dict):
            node[last][draw(KEY)] = draw(anything)
        else:
            node[last] = draw(anything)
    return table
