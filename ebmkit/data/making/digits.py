"""The embedded data set: scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ebmkit.data.making.sources import Loaded, Source
from ebmkit.errors import BadInput


class DigitsSource(Source):
    """1,797 grey images of 8x8 pixels (UCI optdigits, test part), values 0..16 spread over 0..255."""

    classes = tuple("0123456789")

    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise BadInput(
                "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
            ) from error
        digits = load_digits()
        self._images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        self._labels = [int(label) for label in digits.target]

    def __len__(self) -> int:
        return len(self._labels)

    def name(self, index: int) -> str:
        """Its number."""
        return f"digit {index}"

    def load(self, index: int) -> Loaded:
        """The picture, mode L, and which digit it is."""
        return Loaded(Image.fromarray(self._images[index]), self._labels[index])
