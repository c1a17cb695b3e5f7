"""`manifest.json`: what lies in a folder of shards.

Written by `make-shards`, read to notice shards that are cut short.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ebmkit.data.schemes import is_local

MANIFEST = "manifest.json"
FORMAT = "ebmkit-shards-1"
MAX_BYTES = 2**28
"""A larger file is none of ours; a million shards take 150 MB."""


@dataclass(frozen=True)
class Shard:
    """One shard: its file name, its number of images, its size and its checksum."""

    name: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """A source image that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """What `make_shards` made. `image_size` is `(height, width)`, None where the images differ in size."""

    count: int
    image_size: tuple[int, int] | None
    channels: int
    source: str
    options: dict[str, Any]
    shards: tuple[Shard, ...]
    classes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    ebmkit: str = ""
    format: str = field(default=FORMAT)

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        # Names of files may hold bytes that are no UTF-8; JSON has escapes for what Python makes of them.
        return text.encode(errors="backslashreplace").decode()

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Back from `to_json`; `ValueError`, `TypeError` or `KeyError` where the text is something else."""
        plain = json.loads(text)
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise ValueError(f"not a manifest of format {FORMAT}")
        size = plain["image_size"]
        plain["image_size"] = (int(size[0]), int(size[1])) if size else None
        plain["shards"] = tuple(Shard(**shard) for shard in plain["shards"])
        if not all(isinstance(shard.name, str) and isinstance(shard.count, int) for shard in plain["shards"]):
            raise ValueError("shards need a name and a count")
        plain["skipped"] = tuple(Skipped(**one) for one in plain["skipped"])
        plain["classes"] = tuple(plain["classes"])
        return cls(**plain)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in `folder`; None where there is none, or one that other software wrote."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            text = file.read(MAX_BYTES)
        return Manifest.from_json(text.decode())
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def known_counts(shards: list[str]) -> dict[str, int]:
    """The number of images of every local shard that a manifest beside it lists."""
    shards = [shard for shard in shards if is_local(shard)]
    folders = {Path(shard).parent for shard in shards}
    listed = {
        folder / shard.name: shard.count
        for folder in folders
        if (manifest := read_manifest(folder)) is not None
        for shard in manifest.shards
    }
    return {shard: listed[Path(shard)] for shard in shards if Path(shard) in listed}
