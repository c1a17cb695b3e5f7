"""Images of torchvision's data sets, by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ebmkit.data.framing import CorruptImage, check_bounds
from ebmkit.data.making.sources import Loaded, Source
from ebmkit.errors import BadInput

NAMES = (
    "CIFAR10", "CIFAR100", "CelebA", "Country211", "DTD", "EMNIST", "EuroSAT", "FGVCAircraft", "FashionMNIST",
    "Flowers102", "Food101", "GTSRB", "ImageNet", "KMNIST", "LSUN", "MNIST", "OxfordIIITPet", "PCAM", "STL10",
    "SUN397", "SVHN", "StanfordCars", "USPS",
)  # fmt: skip
"""The data sets whose items are an image and a target. LSUN takes its class: `LSUN:church_outdoor`."""


class TorchvisionSource(Source):
    """A data set of `torchvision.datasets`, its files below `root`."""

    def __init__(self, source: str, *, root: str | Path | None, split: str, download: bool) -> None:
        self._name, _, self._part = source.partition(":")
        if root is None:
            raise BadInput(f"{source} is a data set of torchvision: name the folder of its files with `root` (--root)")
        self._root = Path(root).expanduser()
        self._arguments = self._choose(split, download)
        self._set: Any = self._opened()
        self._length = len(self._set)
        self.classes = tuple(str(name) for name in getattr(self._set, "classes", ()) if self._name != "LSUN")
        if self._name == "LSUN":
            # LMDB must not be used across a fork: every process opens it for itself.
            self._set = None

    def __len__(self) -> int:
        return self._length

    def name(self, index: int) -> str:
        """Its number in the data set."""
        return f"{self._name} {index}"

    def load(self, index: int) -> Loaded:
        """Item `index` as a picture."""
        if self._set is None:
            self._set = self._opened()
        try:
            image, target = self._set[index]
        except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
            raise CorruptImage(f"cannot be read ({error})") from error
        single = isinstance(target, int | np.integer) and self._name != "LSUN"
        picture: Image.Image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        check_bounds(*picture.size)
        return Loaded(picture, int(target) if single else None)

    def _choose(self, split: str, download: bool) -> dict[str, Any]:
        """How this class is told its split and whether to download: that differs between the data sets."""
        parameters = inspect.signature(self._class().__init__).parameters
        if self._name == "LSUN":
            if not self._part:
                raise BadInput("LSUN needs a class, for example LSUN:church_outdoor")
            return {"classes": [f"{self._part}_{split}"]}
        chosen: dict[str, Any] = {}
        if self._name == "EMNIST":
            chosen |= {"split": self._part or "balanced", "train": split == "train"}
        elif "train" in parameters:
            chosen["train"] = split == "train"
        elif "split" in parameters:
            chosen["split"] = split
        if download and ("download" in parameters or "kwargs" in parameters):
            chosen["download"] = True
        return chosen

    def _class(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self._name)

    def _opened(self) -> Any:
        try:
            return self._class()(self._root, **self._arguments)
        except ImportError as error:
            raise BadInput(f"torchvision's {self._name} needs another package: {error}") from error
        except Exception as error:
            # torchvision, LMDB and SciPy raise all kinds of errors for files that are missing or broken.
            raise BadInput(
                f"torchvision's {self._name} cannot be read from {self._root}: {error}. Put its files there as "
                f"https://pytorch.org/vision/stable/generated/torchvision.datasets.{self._name}.html says"
                + ("" if self._name in ("LSUN", "ImageNet") else ", or allow the download")
            ) from error
