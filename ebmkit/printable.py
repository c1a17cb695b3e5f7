"""Text from files of others, made harmless for a terminal."""

from __future__ import annotations

import re

# Control characters (escape sequences begin with one), marks that turn the direction of text, and halves of pairs of
# UTF-16, which no terminal and no file can take. New lines and tabs stay.
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with everything that a terminal would act upon written out as an escape, such as `\\x1b`."""
    return _HARMFUL.sub(_escaped, text)


def one_line(text: str, limit: int = 120) -> str:
    """`printable` on one line of at most `limit` characters, for names that others chose."""
    shown = printable(text[: limit + 1].replace("\n", "\\n").replace("\t", "\\t"))
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
