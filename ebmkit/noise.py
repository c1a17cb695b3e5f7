"""Random streams: where every random number of training and sampling comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

_Law = Literal["normal_", "uniform_"]

_AHEAD = 16
"""Draws that an image's stream gives at a time. Another number gives other images for the same seed."""


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
    """One stream per image, numbered by `indices`: an image does not depend on the batch that it is drawn in.

    Each stream gives `_AHEAD` draws of a kind at a time: one call of a generator for each image and step would be 256
    kernel launches a step on a GPU. Draws of one law, shape and type come from blocks of their own, `_AHEAD` times as
    large as the batch.
    """

    def __init__(self, seed: int, indices: Sequence[int], device: str | torch.device) -> None:
        self.generators = [generator(device, seed, "sample", index=i) for i in indices]
        self._draws: dict[tuple[_Law, torch.Size, torch.dtype], Iterator[Tensor]] = {}

    def normal_like(self, x: Tensor) -> Tensor:
        """N(0, 1) values like `x`, row `i` from the stream of image `i`."""
        return self._next("normal_", x)

    def uniform_like(self, x: Tensor) -> Tensor:
        """U[0, 1) values like `x`, row `i` from the stream of image `i`."""
        return self._next("uniform_", x)

    def _next(self, law: _Law, x: Tensor) -> Tensor:
        if len(x) != len(self.generators):
            raise ValueError(f"noise for {len(self.generators)} images cannot be drawn like a batch of {len(x)}")
        key = (law, x.shape, x.dtype)
        if key not in self._draws:
            self._draws[key] = self._endless(law, x.new_empty(len(x), _AHEAD, *x.shape[1:]))
        return next(self._draws[key])

    def _endless(self, law: _Law, block: Tensor) -> Iterator[Tensor]:
        while True:
            for rows, stream in zip(block, self.generators, strict=True):
                getattr(rows, law)(generator=stream)
            for number in range(_AHEAD):
                # A copy: contiguous, the caller's own, and it does not keep the whole block alive.
                yield block[:, number].clone(memory_format=torch.contiguous_format)
