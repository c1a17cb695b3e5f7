"""The embedded data set `digits`, made into shards on first use in the user's cache folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from ebmkit.data.manifest import MANIFEST, read_manifest
from ebmkit.errors import BadInput

VERSION = "digits-1"
"""Name of the cache folder; to be changed whenever its content would change."""


def cache_folder() -> Path:
    """`$EBMKIT_CACHE`, `$XDG_CACHE_HOME/ebmkit` or `~/.cache/ebmkit`, the first that is set."""
    if own := os.environ.get("EBMKIT_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "ebmkit"
    return Path("~/.cache/ebmkit").expanduser()


def digits_shards() -> list[str]:
    """Paths of the shards of scikit-learn's 1,797 handwritten 8x8 digits, with their labels."""
    folder = cache_folder() / VERSION
    manifest = read_manifest(folder)
    if manifest is None:
        _make(folder)
        manifest = read_manifest(folder)
    if manifest is None:
        raise BadInput(f"{folder / MANIFEST} cannot be read; delete {folder}")
    return [str(folder / shard.name) for shard in manifest.shards]


def _make(folder: Path) -> None:
    """Made aside and renamed, so that two processes at once both find a complete folder."""
    from ebmkit.data.making import make_shards

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{VERSION}-", dir=folder.parent))
    except OSError as error:
        raise BadInput(
            f"cannot write to the cache folder {folder.parent} ({error.strerror}); set EBMKIT_CACHE"
        ) from error
    try:
        make_shards("digits", aside, image_size=None, channels=1, workers=0)
        # Fails where another process was first. Anything else that stands there is reported by the caller.
        with contextlib.suppress(OSError):
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
