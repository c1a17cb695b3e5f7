"""Pieces of HTML. Every text that goes in is escaped here, and nowhere else."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ebmkit.reporting.words import NOTHING


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


class Number(NamedTuple):
    """A table's cell that is right-aligned."""

    text: str


Cell = str | Number | Html | None


def tag(name: str, *content: str, **attributes: str | int | None) -> Html:
    """An element; content is escaped unless it is `Html`, and so are attributes (`class_` is class, None none)."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    head = "".join(f' {key}="{html.escape(str(value))}"' for key, value in given.items())
    return Html(f"<{name}{head}>{joined(content)}</{name}>")


def void(name: str, **attributes: str | int | None) -> Html:
    """An element that has no content and no end."""
    return Html(tag(name, **attributes).removesuffix(f"</{name}>"))


def joined(parts: Iterable[str]) -> Html:
    """The parts one after the other, escaped unless they are `Html`."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def table(heads: Sequence[Cell], rows: Iterable[Sequence[Cell]], marked: Iterable[int] = (), label: str = "") -> Html:
    """A table that scrolls by itself where it is too wide; `marked` rows are highlighted."""
    chosen = set(marked)
    head = tag("thead", tag("tr", *(_cell("th", cell) for cell in heads)))
    body = [
        tag("tr", *(_cell("td" if i else "th", cell) for i, cell in enumerate(row)), class_=_differs(number in chosen))
        for number, row in enumerate(rows)
    ]
    # With a tab stop: who has no mouse must reach what is scrolled away.
    content = tag("table", head, tag("tbody", *body))
    return tag("div", content, class_="scroll", tabindex=0, role="region", aria_label=label or None)


def script_data(value: Any) -> Html:
    """JSON that can stand inside a script element: nothing in it can end that element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Html(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _cell(name: str, cell: Cell) -> Html:
    if isinstance(cell, Number):
        return tag(name, cell.text, class_="number")
    return tag(name, NOTHING if cell is None else cell)


def _differs(marked: bool) -> str | None:
    return "differs" if marked else None
