"""The interface of feature extractors."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from ebmkit.interfaces.base import Component

if TYPE_CHECKING:
    from torch import Tensor


class FeatureExtractor(Component):
    """A network, or any other function, in whose features sets of images are compared. No part of a recipe.

    `ebmkit evaluate --extractor NAME` builds one in each of its processes. Metrics are named after it, as
    `frechet_distance[NAME]`: FID is that of one particular Inception network and of no other.
    """

    kind = "feature_extractor"

    @property
    @abstractmethod
    def weights(self) -> str:
        """Which weights these are, with their version: the same text promises the same features, which are cached."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features `[B, D]`, float32, of RGB images `[B, 3, H, W]`, uint8 on the CPU; greys come as three channels.

        Each image by itself, the same every time, without gradients; on any device.
        """
