"""Faults of feature extractors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ebmkit import Context, FeatureExtractor
from faulty_components.common import breaks


class GoodFeatureExtractor(FeatureExtractor):
    """A few means of colours, through a fixed layer."""

    name = "good"

    @property
    def weights(self) -> str:
        return "a fixed layer 1"

    def layer(self) -> Tensor:
        return torch.linspace(-1, 1, 60).view(12, 5)

    def features(self, images: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)
        return means @ self.layer()


@breaks("gives a row of numbers for each image", "float32, for 6 images, not [6, 3, 2, 2] of torch.float32")
class KeepsSpace(GoodFeatureExtractor):
    """Gives a map for each image."""

    def features(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 2)


@breaks("gives a row of numbers for each image", "features carry a gradient")
class KeepsTheGraph(GoodFeatureExtractor):
    """Has trainable weights."""

    def layer(self) -> Tensor:
        return super().layer().requires_grad_()


@breaks("gives a row of numbers for each image", "a feature is not finite")
class DividesByZero(GoodFeatureExtractor):
    """Divides by a spread that is 0 for a single image."""

    def features(self, images: Tensor) -> Tensor:
        return super().features(images) / images.float().std(0, correction=0).amax()


@breaks("looks at each image by itself", "put the network into evaluation mode")
class NormalizesTheBatch(GoodFeatureExtractor):
    """Subtracts the mean of the batch."""

    def features(self, images: Tensor) -> Tensor:
        found = super().features(images)
        return found - found.mean(0)


@breaks("is the same every time", "draws from torch's global random state")
class DropsOut(GoodFeatureExtractor):
    """Adds a little noise."""

    def features(self, images: Tensor) -> Tensor:
        return super().features(images) + 1e-6 * torch.randn(5)


@breaks("is the same every time", "two objects with the same `weights` give other features")
class DrawsItsWeights(GoodFeatureExtractor):
    """Has other weights in every object."""

    objects = 0

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        type(self).objects += 1
        self.scale = type(self).objects

    def layer(self) -> Tensor:
        return super().layer() * self.scale


@breaks("names its weights", "weights must be a text")
class NamesNothing(GoodFeatureExtractor):
    """Says nothing of its weights."""

    @property
    def weights(self) -> str:
        return ""


@breaks("leaves the images as they are", "changes the images that it is given")
class WorksInPlace(GoodFeatureExtractor):
    """Turns the images into negatives."""

    def features(self, images: Tensor) -> Tensor:
        images.neg_()
        return super().features(images)


@breaks("tells images apart", "all images have the same features")
class SeesNothing(GoodFeatureExtractor):
    """Gives zeros."""

    def features(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 5)
