"""Pictures inside the page: PNG and GIF files as data URIs, within a budget of bytes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Name = TypeVar("Name")

KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"GIF87a": "gif", b"GIF89a": "gif"}


def size_in_page(path: Path) -> int:
    """Bytes that a picture takes in the page."""
    try:
        return path.stat().st_size * 4 // 3 + 100
    except OSError:
        return 0


def data_uri(path: Path, limit: int) -> str | None:
    """The picture as a data URI; None for what is no PNG or GIF, is gone, or takes more than `limit` bytes."""
    try:
        if not 0 < size_in_page(path) <= limit:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    for signature, kind in KINDS.items():
        if content.startswith(signature):
            return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return None


def thinned(pictures: Sequence[tuple[Name, Path]], budget: int) -> list[tuple[Name, Path]]:
    """As many pictures as fit into `budget` bytes, evenly spaced among all and the last one first of all."""
    count = len(pictures)
    while count:
        # Counted from the end: the newest picture tells most.
        chosen = [pictures[len(pictures) - 1 - i * len(pictures) // count] for i in reversed(range(count))]
        if sum(size_in_page(path) for _, path in chosen) <= budget:
            return chosen
        count = min(count - 1, count * 9 // 10)
    return []
