"""Random streams: where every random number of training and sampling comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def stream_seed(seed: int, *stream: int | str, index: int = 0) -> int:
    """A generator seed for the stream of this name; consecutive `index`es have different seeds.

    torch's CPU generator uses the low 32 bits only, so `index` is added after hashing: 2^32 seeds of a stream differ.
    """
    digest = hashlib.sha256(repr((seed, *stream)).encode()).digest()
    return (int.from_bytes(digest[:4], "big") + index) % 2**32


def generator(device: str | torch.device, seed: int, *stream: int | str, index: int = 0) -> torch.Generator:
    """A generator on `device` at the start of a stream."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *stream, index=index))


class GeneratorNoise:
    """Noise for a batch from one generator, as training uses it."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def normal_like(self, x: Tensor) -> Tensor:
        """N(0, 1) values like `x`."""
        return torch.randn(x.shape, generator=self.generator, device=x.device, dtype=x.dtype)

    def uniform_like(self, x: Tensor) -> Tensor:
        """U[0, 1) values like `x`."""
        return torch.rand(x.shape, generator=self.generator, device=x.device, dtype=x.dtype)


class PerImageNoise:
    """One stream per image, numbered by `indices`: an image does not depend on the batch that it is drawn in."""

    def __init__(self, seed: int, indices: Sequence[int], device: str | torch.device) -> None:
        self.generators = [generator(device, seed, "sample", index=i) for i in indices]

    def normal_like(self, x: Tensor) -> Tensor:
        """N(0, 1) values like `x`, row `i` from the stream of image `i`."""
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        for row, stream in zip(out, self.generators, strict=True):
            row.normal_(generator=stream)
        return out

    def uniform_like(self, x: Tensor) -> Tensor:
        """U[0, 1) values like `x`, row `i` from the stream of image `i`."""
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        for row, stream in zip(out, self.generators, strict=True):
            row.uniform_(generator=stream)
        return out
