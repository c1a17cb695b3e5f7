"""From the shard patterns of a recipe to the list of shards."""

from __future__ import annotations

from collections.abc import Iterable
from glob import glob, has_magic
from itertools import islice
from pathlib import Path

from braceexpand import braceexpand

from ebmkit.data.schemes import is_local, unopened
from ebmkit.errors import BadData, BadInput

EMBEDDED = "digits"
MAX_SHARDS = 1_000_000


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
        for one in _braces(pattern):
            shards += _local(one, make) if is_local(one) else [one]
    return list(dict.fromkeys(shards))


def _braces(pattern: str) -> list[str]:
    try:
        found = list(islice(braceexpand(pattern), MAX_SHARDS + 1))
    except ValueError as error:
        raise BadData(f"data.shards: {pattern!r} has unbalanced braces") from error
    if len(found) > MAX_SHARDS:
        raise BadData(f"data.shards: {pattern!r} names more than {MAX_SHARDS:,} shards")
    return found


def _local(pattern: str, make: str | None) -> list[str]:
    path = Path(pattern).expanduser()
    if path.is_file():
        return [_as_local(str(path))]
    if path.is_dir():
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
