"""From the shard patterns of a recipe to the list of shards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from glob import glob, has_magic
from pathlib import Path

from braceexpand import braceexpand

from ebmkit.binder import show
from ebmkit.data.schemes import is_local, unopened
from ebmkit.errors import BadData, BadInput

EMBEDDED = "digits"
MAX_SHARDS = 1_000_000
LONGEST = 10_000
"""Characters of a pattern with braces."""
QUOTED = 300
"""Characters of it in a message."""
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?\Z")
_LETTERS = re.compile(r"[A-Za-z]\.\.[A-Za-z]")


def expand(patterns: str | Iterable[str], make: str | None = None) -> list[str]:
    """The shards that `patterns` name, in order, each once; `BadData` where one is missing.

    Braces work everywhere, globs for local files only. `make` is the command that the error message suggests.
    """
    shards: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if pattern == EMBEDDED:
            shards += _embedded()
            continue
        if reason := unopened(pattern):
            raise BadData(f"data.shards: {reason}")
        for one in braces(pattern):
            shards += _local(one, make) if is_local(one) else [one]
    return list(dict.fromkeys(shards))


def braces(pattern: str) -> list[str]:
    """The names that a pattern's braces expand to; `BadData` for unbalanced ones, and for more than anybody has."""
    if "{" not in pattern and "}" not in pattern and "\\" not in pattern:
        return [pattern]
    if len(pattern) > LONGEST:
        raise BadData(f"data.shards: {show(pattern)} is longer than {LONGEST:,} characters")
    try:
        # braceexpand builds what is inside of braces before it gives the first name.
        if _count(pattern) > MAX_SHARDS:
            raise BadData(f"data.shards: {show(pattern, QUOTED)} names more than {MAX_SHARDS:,} shards")
        return list(braceexpand(pattern))
    except (ValueError, RecursionError) as error:
        raise BadData(f"data.shards: {show(pattern, QUOTED)} has unbalanced braces") from error


def _count(pattern: str) -> int:
    """How many names braces expand to."""
    total, depth, begin, place = 1, 0, 0, 0
    while place < len(pattern):
        if pattern[place] == "\\":
            place += 1
        elif pattern[place] == "{":
            begin, depth = (begin, depth + 1) if depth else (place + 1, 1)
        elif pattern[place] == "}":
            depth -= 1
            if depth == 0:
                total *= _count_inner(pattern[begin:place])
        place += 1
    return total


def _count_inner(text: str) -> int:
    if found := _RANGE.match(text):
        return abs(int(found[2]) - int(found[1])) // max(1, int(found[3] or 1)) + 1
    parts, depth, begin, place = [], 0, 0, 0
    while place < len(text):
        if text[place] == "\\":
            place += 1
        elif text[place] in "{}":
            depth += 1 if text[place] == "{" else -1
        elif text[place] == "," and depth == 0:
            parts.append(text[begin:place])
            begin = place + 1
        place += 1
    if parts:
        return sum(map(_count, [*parts, text[begin:]]))
    return 52 if _LETTERS.match(text) else _count(text)


def _local(pattern: str, make: str | None) -> list[str]:
    try:
        path = Path(pattern).expanduser()
        is_file, is_dir = path.is_file(), path.is_dir()
    except (OSError, RuntimeError) as error:
        # A name that is too long, or of a user that there is not.
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadData(f"data.shards: {show(pattern)} cannot be read: {reason}") from error
    if is_file:
        return [_as_local(str(path))]
    if is_dir:
        raise BadData(f"data.shards: {pattern} is a folder; name its shards, for example {path / '*.tar'}")
    hint = f"; make them with: {make}" if make else ""
    if not has_magic(pattern):
        raise BadData(f"data.shards: there is no file {pattern} (looked in {Path.cwd()}){hint}")
    found = sorted(_as_local(name) for name in glob(str(path), recursive=True) if Path(name).is_file())
    if not found:
        raise BadData(f"data.shards: no file matches {pattern} (looked in {Path.cwd()}){hint}")
    return found


def _as_local(name: str) -> str:
    """`./a:b.tar` for a file `a:b.tar`, which would read as a URL."""
    return name if is_local(name) else f"./{name}"


def _embedded() -> list[str]:
    from ebmkit.data.embedded import digits_shards

    try:
        return digits_shards()
    except BadInput as error:
        raise BadData(f"data.shards: cannot make the embedded set 'digits': {error}") from error
