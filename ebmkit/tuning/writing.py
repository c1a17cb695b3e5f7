"""A recipe's text with another step size, its comments kept."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

import tomli_w

from ebmkit import overrides

_HEADER = re.compile(r"^\s*\[")
_SAMPLER = re.compile(r"^\s*\[\s*sampler\s*\]")
_STEP_SIZE = re.compile(r"^\s*step_size\s*=")


def with_step_size(text: str, step_size: float, comments: Sequence[str]) -> str:
    """The recipe `text` with `sampler.step_size` set, and `comments` above it.

    A text in which the key has no line of its own is written anew, without its comments.
    """
    expected = overrides.apply(tomllib.loads(text), {"sampler.step_size": step_size})
    notes = [f"# {comment}" for comment in comments]
    edited = _edited(text.splitlines(), [*notes, f"step_size = {step_size!r}"])
    if edited is not None:
        try:
            if tomllib.loads(edited) == expected:
                return edited
        except tomllib.TOMLDecodeError:
            pass
    return "\n".join([*notes, tomli_w.dumps(expected)])


def _edited(lines: list[str], new: list[str]) -> str | None:
    begin = next((i + 1 for i, line in enumerate(lines) if _SAMPLER.match(line)), None)
    if begin is None:
        return None
    end = next((i for i in range(begin, len(lines)) if _HEADER.match(lines[i])), len(lines))
    old = next((i for i in range(begin, end) if _STEP_SIZE.match(lines[i])), None)
    before, after = (lines[:begin], lines[begin:]) if old is None else (lines[:old], lines[old + 1 :])
    return "\n".join([*before, *new, *after]) + "\n"
