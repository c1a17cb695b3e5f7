"""`--set key=value`: the one way to change a recipe from outside its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ebmkit import toml
from ebmkit.binder import show
from ebmkit.errors import BadInput
from ebmkit.printable import one_line


def parse_value(text: str) -> Any:
    """A TOML value; bare words are text, so that `--set energy.use=resnet` needs no quotes."""
    try:
        table = toml.loads(f"value = {text}")
    except ValueError:
        # A TOML error is a ValueError, and so is a number of more digits than Python reads.
        return text
    # Text of several lines may happen to be TOML of several keys.
    return table["value"] if len(table) == 1 else text


def parse(assignments: Iterable[str]) -> dict[str, Any]:
    """`["a.b=1", ...]` as `{"a.b": 1}`; a key that is given several times collects its values in a list.

    That is what a shell makes of `--set data.shards=train-{0..1}.tar`. Raises `BadInput`.
    """
    collected: dict[str, list[Any]] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise BadInput(f"--set {one_line(assignment)}: write key=value, for example --set sampler.steps=5")
        collected.setdefault(key.strip(), []).append(parse_value(text.strip()))
    return {key: values[0] if len(values) == 1 else values for key, values in collected.items()}


def apply(table: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the recipe's table with each dotted key set; lists are addressed by index or by a part's name.

    `regularizers.0.weight` and `regularizers.wgan_lp.weight` are the same key if `wgan_lp` comes first. The order of
    the overrides does not matter: a part's name, its `use`, is set before its options.
    """
    result: dict[str, Any] = _copy(table)
    for key, value in sorted(overrides.items(), key=_from_the_top):
        _set(result, key, value)
    return result


def _from_the_top(item: tuple[str, Any]) -> tuple[int, bool]:
    key, _ = item
    return key.count("."), not key.endswith(".use")


def _set(result: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    if len(parents) > toml.MOST_PARTS:
        raise BadInput(f"--set {one_line(key)}: a key of {len(parents) + 1:,} parts is none of a recipe")
    node: Any = result
    for depth, part in enumerate(parents):
        node = _child(node, part, ".".join(parents[: depth + 1]))
    if isinstance(node, list):
        node[_index(node, last, key)] = _copy(value)
    elif parents and last == "use" and node.get("use") != value:
        # Another part has other options: keeping the old ones would only be a list of unknown keys.
        node.clear()
        node["use"] = value
    else:
        node[last] = _copy(value)


def _child(node: Any, part: str, path: str) -> Any:
    key: Any = _index(node, part, path) if isinstance(node, list) else part
    child = node[key] if isinstance(node, list) else node.setdefault(key, {})
    if not isinstance(child, dict | list):
        # A number gives way to a table: --set sampler.noise.use=linear over noise = 0.3
        child = node[key] = {}
    return child


def _index(items: list[Any], part: str, path: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    names = [item.get("use") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    known = ", ".join(f"{i} ({name or show(item)})" for i, (name, item) in enumerate(zip(names, items, strict=True)))
    what = f"has {one_line(known, 300)}" if known else "is empty"
    raise BadInput(f"--set {one_line(path)}: the list has no '{one_line(part)}'; it {what}")


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value
