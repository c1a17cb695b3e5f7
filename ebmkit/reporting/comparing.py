"""Recipes side by side, key by key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_KEYS = 500
MAX_TEXT = 200
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Row:
    """A dotted key of the recipes and its value in each run; None where a run has no such key."""

    key: str
    values: Sequence[str | None]

    @property
    def differs(self) -> bool:
        """Whether the runs do not agree."""
        return len(set(self.values)) > 1


def compare(tables: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Every key of the recipes, in their order; `MAX_KEYS` at most, those that differ first to be kept."""
    flat = [dict(_flat(table)) for table in tables]
    keys = list(dict.fromkeys(key for table in flat for key in table))
    places: dict[str, int] = {}
    for key in keys:
        for above in _prefixes(key):
            places.setdefault(above, len(places))
    # What belongs together stands together, also where the runs do not have the same keys.
    keys.sort(key=lambda key: [places[above] for above in _prefixes(key)])
    rows = [Row(key, [table.get(key) for table in flat]) for key in keys]
    if len(rows) <= MAX_KEYS:
        return rows
    kept = sorted(rows, key=lambda row: not row.differs)[:MAX_KEYS]
    return [row for row in rows if row in kept]


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        path = f"{above}.{key}" if above else key
        if isinstance(value, Mapping) and value:
            yield from _flat(value, path)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield from _flat({str(i): item for i, item in enumerate(value)}, path)
        else:
            yield _short(path), _short(_text(value))


def _prefixes(key: str) -> list[str]:
    """Of `a.b.c`: `a`, `a.b` and `a.b.c`."""
    words = key.split(".")
    return [".".join(words[: i + 1]) for i in range(len(words))]


def _text(value: Any) -> str:
    # TOML has dates, which JSON has not.
    return json.dumps(value, ensure_ascii=False, default=str)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "\u2026"
