"""TOML of any origin, read in bounded time."""

from __future__ import annotations

import re
import tomllib
from typing import Any

MOST_PARTS = 100
"""Of a dotted key; tomllib needs more than a minute for one of 50,000."""

_PART = r"""(?>[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_ENDLESS_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART}\.[ \t]*+){{{MOST_PARTS}}}")


class TooDeep(ValueError):
    """A table in a table, and so on, deeper than any recipe."""


def loads(text: str) -> dict[str, Any]:
    """The table that a TOML text holds; raises `TooDeep`, and `ValueError` for what is no TOML."""
    if _ENDLESS_KEY.search(text):
        raise TooDeep
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise TooDeep from error
