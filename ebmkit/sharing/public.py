"""A recipe as it may be shown to anyone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ebmkit.data.patterns import EMBEDDED
from ebmkit.data.schemes import is_local, scheme
from ebmkit.recipe import Recipe

WITHHELD = "withheld.tar"
"""Stands for shards that were read by a command."""


def published(recipe: Recipe) -> Recipe:
    """The recipe without trackers, and without what its `[data]` says of the machine it was trained on.

    Commands are withheld, URLs lose user names, passwords and queries, and of absolute paths only file names stay.
    """
    shards = tuple(dict.fromkeys(map(_shown, recipe.data.patterns)))
    data = recipe.data.model_copy(
        update={"shards": shards[0] if len(shards) == 1 else shards, "cache_dir": None, "make": None}
    )
    return replace(recipe, data=data, trackers=())


def _shown(pattern: str) -> str:
    if pattern == EMBEDDED:
        return pattern
    if is_local(pattern):
        return Path(pattern).name if pattern.startswith(("/", "~")) else pattern
    if scheme(pattern) == "pipe":
        return WITHHELD
    parts = urlsplit(pattern)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
