"""What buffers with slots share: this rank's images and time steps, as tensors on the training device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ebmkit import Context
from ebmkit.noise import generator
from ebmkit_buffers.options import SlotOptions


def share_of(size: int, context: Context) -> int:
    """Slots of this rank, of `size` over all ranks."""
    return size // context.world_size + (context.rank < size % context.world_size)


class Slots:
    """`x[N, C, H, W]` of the options' `dtype`, initially N(0, I), and `t[N]` int64, initially U{1..T} (Algorithm 1)."""

    def __init__(self, options: SlotOptions, context: Context) -> None:
        random = generator(context.device, context.seed, "buffer", context.rank)
        count = share_of(options.size, context)
        # Drawn in float32 and rounded: numbers that are drawn in 16 bits have short tails.
        x = torch.randn(count, *context.image_shape, generator=random, device=context.device)
        self.x = x.to(getattr(torch, options.dtype))
        self.t = torch.randint(1, context.time_steps + 1, (count,), generator=random, device=context.device)

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` different slots, uniformly; raises `ValueError` where there are fewer."""
        if n > len(self.t):
            raise ValueError(f"the buffer has {len(self.t)} slots here, fewer than the {n} chains wanted")
        return torch.randperm(len(self.t), generator=generator, device=self.t.device)[:n]

    def take(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of the images of `slots[n]`, float32, and of their time steps."""
        return self.x[slots].float(), self.t[slots]

    def put(self, slots: Tensor, x: Tensor) -> None:
        """Keep the images, rounded to `dtype`; what float16 cannot hold becomes infinite."""
        self.x[slots] = x.to(self.x.dtype)

    def state_dict(self) -> dict[str, Any]:
        """`x` and `t` of every slot."""
        return {"x": self.x, "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back `x` and `t`; raises `ValueError` where shapes or types differ: another type would be rounded."""
        own = {"x": self.x, "t": self.t}
        for name, mine in own.items():
            if state[name].shape != mine.shape:
                raise ValueError(f"buffer {name} has shape {tuple(state[name].shape)}, expected {tuple(mine.shape)}")
            if state[name].dtype != mine.dtype:
                raise ValueError(f"buffer {name} is {_name(state[name])}, expected {_name(mine)}")
        for name, mine in own.items():
            mine.copy_(state[name])


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
