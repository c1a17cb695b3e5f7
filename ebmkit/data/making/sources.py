"""Where the images of new shards come from: one class for each kind of source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from ebmkit.errors import BadInput

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
)


class Loaded(NamedTuple):
    """A picture, perhaps not decoded yet, and its class, if it has one."""

    picture: Image.Image
    label: int | None


class Source(ABC):
    """A numbered collection of images. Picklable: worker processes open files for themselves when they first load."""

    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of their labels, where the source names them."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def name(self, index: int) -> str:
        """How the manifest calls this image if it must be skipped."""

    @abstractmethod
    def load(self, index: int) -> Loaded:
        """Open the image; `CorruptImage` where it is none."""

    def close(self) -> None:
        """Let go of open and temporary files."""
        return


class NamedFiles:
    """Image files by their relative names, sorted, labelled by the first folder on their path.

    A folder that holds everything is no class and doesn't count.
    """

    def __init__(self, names: Sequence[str]) -> None:
        order = sorted(range(len(names)), key=lambda place: (names[place], place))
        self.order = [place for place in order if is_image_name(names[place])]
        self.names = [names[place] for place in self.order]
        folders = [PurePosixPath(name).parts[:-1] for name in self.names]
        while folders and folders[0] and all(parts[:1] == folders[0][:1] for parts in folders):
            folders = [parts[1:] for parts in folders]
        self.classes = tuple(sorted({parts[0] for parts in folders if parts}))
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.labels = [numbers[parts[0]] if parts else None for parts in folders]


def is_image_name(name: str) -> bool:
    """Whether this names an image, and no hidden file such as the `._x.png` and `__MACOSX` of Mac archives."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def open_source(source: str | Path, *, root: str | Path | None, split: str, download: bool) -> Source:
    """The source that `source` names: a folder, an archive, `digits`, or a data set of torchvision."""
    from ebmkit.data.making.archive import open_archive
    from ebmkit.data.making.digits import DigitsSource
    from ebmkit.data.making.folder import FolderSource

    path = Path(source).expanduser()
    if str(source) == "digits":
        return DigitsSource()
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        archive = open_archive(path)
        if archive is not None:
            return archive
        raise BadInput(f"{path} is neither a folder nor a zip or tar file of images")
    from ebmkit.data.making.torchvision_set import NAMES, TorchvisionSource

    name = str(source).partition(":")[0]
    if name in NAMES:
        return TorchvisionSource(str(source), root=root, split=split, download=download)
    raise BadInput(
        f"there is no folder or file {source}, and torchvision has no image data set of that name; give a folder of "
        f"images, a zip or tar file of images, 'digits', or one of {', '.join(NAMES)}"
    )
