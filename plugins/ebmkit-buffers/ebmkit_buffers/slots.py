"""What buffers with slots share: this rank's images and time steps, as tensors on the training device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ebmkit import Context
from ebmkit.noise import generator


def share_of(size: int, context: Context) -> int:
    """Slots of this rank, of `size` over all ranks."""
    return size // context.world_size + (context.rank < size % context.world_size)


class Slots:
    """`x[N, C, H, W]` float32, initially N(0, I), and `t[N]` int64, initially U{1..T} (Algorithm 1)."""

    def __init__(self, size: int, context: Context) -> None:
        random = generator(context.device, context.seed, "buffer", context.rank)
        count = share_of(size, context)
        self.x = torch.randn(count, *context.image_shape, generator=random, device=context.device)
        self.t = torch.randint(1, context.time_steps + 1, (count,), generator=random, device=context.device)

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` different slots, uniformly; raises `ValueError` where there are fewer."""
        if n > len(self.t):
            raise ValueError(f"the buffer has {len(self.t)} slots here, fewer than the {n} chains wanted")
        return torch.randperm(len(self.t), generator=generator, device=self.t.device)[:n]

    def state_dict(self) -> dict[str, Any]:
        """`x` and `t` of every slot."""
        return {"x": self.x, "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back `x` and `t`; raises `ValueError` where the shapes differ."""
        own = {"x": self.x, "t": self.t}
        for name, mine in own.items():
            if state[name].shape != mine.shape:
                raise ValueError(f"buffer {name} has shape {tuple(state[name].shape)}, expected {tuple(mine.shape)}")
        for name, mine in own.items():
            mine.copy_(state[name])
