"""The `trial_cyclic` buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ebmkit_buffers.cyclic import Cyclic
from pydantic import Field

from ebmkit import Context, Draw

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TrialCyclic(Cyclic):
    """`cyclic` (section 4.4) with another order of its slots, or with chains that stay at t = 1. Not in the paper."""

    name = "trial_cyclic"

    class Options(Cyclic.Options):
        """Options of `trial_cyclic`."""

        order: Literal["random", "in_turn"] = Field(
            default="random",
            description="Slots are drawn at random, or one after the other: all chains then move on alike.",
        )
        ends: int = Field(
            default=1,
            ge=1,
            le=100,
            description="How often a chain is at t = 1 before it starts again; the paper has 1.",
        )

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        super().__init__(options, context)
        self.next = 0

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        """`n` chains; time steps that the slots count on below 1 are 1."""
        drawn = super().draw(n, generator) if self.options.order == "random" else self._draw_in_turn(n, generator)
        return drawn._replace(t=drawn.t.clamp_min(1))

    def _draw_in_turn(self, n: int, generator: torch.Generator) -> Draw:
        import torch

        count = len(self.slots.t)
        if n > count:
            raise ValueError(f"the buffer has {count} slots here, fewer than the {n} chains wanted")
        slots = (torch.arange(n, device=self.slots.t.device) + self.next) % count
        self.next = (self.next + n) % count
        x, t = self.slots.take(slots)
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        return Draw(slots, noise.where((t == self.context.time_steps).view(-1, 1, 1, 1), x), t)

    def store(self, slots: Tensor, x: Tensor) -> None:
        """Keep `x` at the time step that follows; after `ends` times at t = 1 the slot returns to t = T."""
        t = self.slots.t[slots] - 1
        self.slots.t[slots] = t.where(t > 1 - self.options.ends, self.context.time_steps)
        self.slots.put(slots, x)

    @classmethod
    def chain_length(cls, options: Any, context: Context, batch_size: int) -> float:
        """As that of `cyclic`, and longer by what it stays."""
        return (context.time_steps + options.ends - 1) * float(options.size) / batch_size

    def state_dict(self) -> dict[str, Any]:
        """`x` and `t` of every slot, and the slot whose turn it is."""
        return {**super().state_dict(), "next": self.next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict(state)
        self.next = int(state["next"])
