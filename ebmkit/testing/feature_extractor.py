"""The contract of feature extractors."""

from __future__ import annotations

import torch
from torch import Tensor

from ebmkit.process_settings import kept
from ebmkit.sampling import to_uint8
from ebmkit.testing.analytic import photographs
from ebmkit.testing.contract import Contract, require
from ebmkit.testing.globals import seeded, unchanged_globals
from ebmkit.testing.numeric import same

COUNT = 6
ALIKE = 1e-4
"""How far features may differ by the size of the batch, relative to the largest: kernels sum in another order."""


class FeatureExtractorContract(Contract):
    """What metrics rely on in a feature extractor: a function of each image by itself, always the same."""

    def images(self, count: int = COUNT) -> Tensor:
        """Smooth random pictures `[count, 3, H, W]`, uint8."""
        return to_uint8(photographs(count, (3, *self.context().image_shape[1:])))

    def test_gives_a_row_of_numbers_for_each_image(self) -> None:
        """Features are finite, float32, `[B, D]`, with one D for any number of images and no gradient."""
        extractor, widths = self.build(), set()
        for count in (COUNT, 1):
            found = extractor.features(self.images(count))
            told = f"{list(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            good = isinstance(found, Tensor) and found.ndim == 2 and found.dtype == torch.float32
            require(good and len(found) == count, f"return [{count}, D], float32, for {count} images, not {told}")
            require(bool(found.isfinite().all()), "a feature is not finite, and no distance between sets would be")
            require(not found.requires_grad, "features carry a gradient, and with it the memory of the whole network")
            widths.add(found.shape[1])
        require(len(widths) == 1, f"the number of features changes with that of images: {sorted(widths)}")

    def test_looks_at_each_image_by_itself(self) -> None:
        """The features of an image depend neither on the others of its batch nor on its place among them."""
        extractor, images = self.build(), self.images()
        together, reversed_ = extractor.features(images).cpu(), extractor.features(images.flip(0)).cpu().flip(0)
        alone = torch.cat([extractor.features(image[None]).cpu() for image in images])
        require(
            same(together, alone, ALIKE) and same(together, reversed_, ALIKE),
            "an image has other features beside other images: put the network into evaluation mode, so that batch norm "
            "takes its stored statistics and dropout is off",
        )

    def test_is_the_same_every_time(self) -> None:
        """The same weights text, the same features: of every object and call, without random numbers."""
        images, first, second = self.images(), self.build(), self.build()
        with kept():
            # The network may be loaded now, and initialised before it gets its weights.
            first.features(images)
        with unchanged_globals("features()"):
            found = first.features(images).cpu()
        with seeded(99):
            again, other = first.features(images).cpu(), second.features(images).cpu()
        require(same(found, again, ALIKE), "a second call gives other features for the same images")
        require(
            first.weights != second.weights or same(found, other, ALIKE),
            "two objects with the same `weights` give other features: load weights, do not draw them, and name each "
            "kind of weights in `weights`; features of real images are cached by it",
        )

    def test_names_its_weights(self) -> None:
        """`weights` is a text that is the same for every object of the same options."""
        first, second = self.build().weights, self.build().weights
        require(
            isinstance(first, str) and first.strip() and first == second,
            f"weights must be a text that names the weights and their version, and stays, not {first!r} and {second!r}",
        )

    def test_leaves_the_images_as_they_are(self) -> None:
        """The images that it is given are not changed."""
        images = self.images()
        before = images.clone()
        self.build().features(images)
        require(bool((images == before).all()), "features() changes the images that it is given: work on a copy")

    def test_tells_images_apart(self) -> None:
        """Pictures that differ have features that differ."""
        found = self.build().features(self.images()).cpu()
        require(
            bool((found.std(0) > 0).any()) and not same(found[:1], found[1:2], 1e-6),
            "all images have the same features, in which no two sets of images differ",
        )
