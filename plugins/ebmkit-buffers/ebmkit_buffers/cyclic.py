"""The `cyclic` buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ebmkit import Buffer, Context, Draw
from ebmkit_buffers.options import SlotOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Cyclic(Buffer):
    """The paper's buffer (section 4.4): slots hold `(x, t)` and cycle through t = T, ..., 1.

    Initially `x ~ N(0, I)` and `t ~ U{1..T}`. A stored chain moves on to `t - 1`; where that is 0 the slot starts again
    at `t = T` from a fresh `x ~ N(0, I)`.
    """

    name = "cyclic"

    class Options(SlotOptions):
        """Options of the `cyclic` buffer."""

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        from ebmkit_buffers.slots import Slots

        super().__init__(options, context)
        self.slots = Slots(options, context)

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        """`n` chains; those at t = T are at the start of a sweep, so they are drawn afresh from N(0, I)."""
        import torch

        slots = self.slots.choose(n, generator)
        x, t = self.slots.take(slots)
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        starts = (t == self.context.time_steps).view(-1, 1, 1, 1)
        return Draw(slots, torch.where(starts, noise, x), t)

    def store(self, slots: Tensor, x: Tensor) -> None:
        """Keep `x` at `t - 1`; at `t = 0` the slot returns to `t = T`, where `draw` gives it fresh noise."""
        t = self.slots.t[slots] - 1
        self.slots.t[slots] = t.where(t > 0, self.context.time_steps)
        self.slots.put(slots, x)

    def restart(self, drawn: Draw, bad: Tensor, generator: torch.Generator) -> Draw:
        """Chains that start again begin a sweep, at t = T."""
        t = drawn.t.masked_fill(bad, self.context.time_steps)
        self.slots.t[drawn.slots] = t
        return super().restart(drawn, bad, generator)._replace(t=t)

    @classmethod
    def chain_length(cls, options: Any, context: Context, batch_size: int) -> float:
        """T draws of a slot, each after `size / batch_size` steps in the mean."""
        return float(context.time_steps * options.size / batch_size)

    def state_dict(self) -> dict[str, Any]:
        """`x` and `t` of every slot."""
        return self.slots.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.slots.load_state_dict(state)
