"""The images that are measured with: the recipe's own, or made-up ones where its shards are missing."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ebmkit.data.making.writing import ShardWriter
from ebmkit.data.patterns import expand
from ebmkit.errors import BadData
from ebmkit.recipe import Recipe

COUNT, PER_SHARD = 2048, 256


def with_images(recipe: Recipe, folder: Path, say: Callable[[str], None]) -> tuple[Recipe, bool]:
    """The recipe with shards that are there, and whether they are made up; those are written to `folder`."""
    try:
        expand(recipe.data.patterns)
    except BadData as missing:
        say(f"{missing}: measuring with {COUNT:,} made-up images in JPEG shards")
        pattern = write_made_up(folder, recipe.data.shape)
        return replace(recipe, data=recipe.data.model_copy(update={"shards": pattern})), True
    return recipe, False


def write_made_up(folder: Path, shape: tuple[int, int, int]) -> str:
    """Shards of made-up images of this `(C, H, W)`; returns their pattern."""
    writer = ShardWriter(folder, "train", PER_SHARD)
    for image in made_up(COUNT, shape):
        data = io.BytesIO()
        pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(data, "JPEG", quality=90)
        writer.add(data.getvalue(), "jpg", None)
    writer.finish()
    return str(folder / "train-*.tar")


def made_up(count: int, shape: tuple[int, int, int]) -> Tensor:
    """`count` smooth images with some noise, uint8 `[count, C, H, W]`: they compress about as photographs do."""
    random = torch.Generator().manual_seed(0)
    channels, height, width = shape
    coarse = torch.rand(count, channels, 4, 4, generator=random)
    smooth = interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    noisy = smooth + 0.03 * torch.randn(smooth.shape, generator=random)
    return (noisy * 255).clamp(0, 255).to(torch.uint8)
