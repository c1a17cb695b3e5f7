"""The `persistent` buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ebmkit import Buffer, Context, Draw
from ebmkit_buffers.options import SlotOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Persistent(Buffer):
    """Persistent contrastive divergence (Tieleman 2008): chains go on for ever, some start again (Du & Mordatch 2019).

    With `time_steps = 1` this is PCD. With more, a slot keeps the `t ~ U{1..T}` that it was given at the start, so that
    each `p_t` has persistent chains of its own.
    """

    name = "persistent"

    class Options(SlotOptions):
        """Options of the `persistent` buffer."""

        reinitialize: float = Field(
            default=0.05, ge=0, le=1, description="Probability that a drawn chain starts again from N(0, I)."
        )

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        from ebmkit_buffers.slots import Slots

        super().__init__(options, context)
        self.slots = Slots(options, context)

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        """`n` chains; each is replaced by N(0, I) with probability `reinitialize`."""
        import torch

        slots = self.slots.choose(n, generator)
        x, t = self.slots.take(slots)
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        again = torch.rand(n, generator=generator, device=x.device) < self.options.reinitialize
        return Draw(slots, torch.where(again.view(-1, 1, 1, 1), noise, x), t)

    def store(self, slots: Tensor, x: Tensor) -> None:
        """Keep `x`; the slot's time step stays."""
        self.slots.put(slots, x)

    def state_dict(self) -> dict[str, Any]:
        """`x` and `t` of every slot."""
        return self.slots.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.slots.load_state_dict(state)
