"""Images in a folder and its sub-folders."""

from __future__ import annotations

import os
from pathlib import Path

from ebmkit.data.framing import CorruptImage
from ebmkit.data.making.sources import Loaded, NamedFiles, Source
from ebmkit.data.members import MAX_FILE
from ebmkit.data.pixels import open_picture
from ebmkit.errors import BadInput


class FolderSource(Source):
    """Every image file below a folder; its first sub-folder on the way is its class."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = [
            (Path(place) / file).relative_to(folder).as_posix() for place, _, files in os.walk(folder) for file in files
        ]
        self._files = NamedFiles(found)
        self.classes = self._files.classes
        if not self._files.names:
            raise BadInput(f"{folder} holds no image files")

    def __len__(self) -> int:
        return len(self._files.names)

    def name(self, index: int) -> str:
        """Its path in the folder."""
        return self._files.names[index]

    def load(self, index: int) -> Loaded:
        """Read the file."""
        path = self._folder / self._files.names[index]
        try:
            if path.stat().st_size > MAX_FILE:
                raise CorruptImage("is larger than any image file should be")
            return Loaded(open_picture(path.read_bytes()), self._files.labels[index])
        except OSError as error:
            raise CorruptImage(f"cannot be read ({error.strerror})") from error
