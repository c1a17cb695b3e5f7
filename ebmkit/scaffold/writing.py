"""Writing a project so that it is there as a whole or not at all, and never over anything."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from ebmkit.errors import BadInput
from ebmkit.files import sync_file, sync_folder


def write_project(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files into `folder`, which is new or empty; raises `BadInput` if it is not, and where it cannot be."""
    try:
        # What a link leads to; it cannot be replaced by a rename itself.
        target = Path(os.path.realpath(folder))
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise BadInput(f"{folder}: already exists and is never overwritten; choose another folder by --out")
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(target, files)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written: {error.strerror}; choose another folder by --out") from error


def _write_whole(target: Path, files: Mapping[str, str]) -> None:
    temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir()
        for name, text in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sync_file(path)
        for path in (temporary, *temporary.rglob("*")):
            if path.is_dir():
                sync_folder(path)
        # Fails where anything came into the folder since: only an empty one gives way to a rename.
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(target.parent)
