"""The interface of replay buffers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ebmkit.interfaces.base import Component, Context

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Draw(NamedTuple):
    """Chains to go on with: buffer `slots[n]` (int64), their images `x[n, C, H, W]` and time steps `t[n]`."""

    slots: Tensor
    x: Tensor
    t: Tensor


class Buffer(Component):
    """Holds the chains `(x, t)` between training steps. Each rank has its own part.

    An option named `size` is the number of slots over all ranks; `ebmkit check` holds it against the batch size.
    """

    kind = "buffer"

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Draw:
        """`n` chains from different slots, on the training device; tensors that the caller may change.

        Raises `ValueError` where this rank has fewer slots.
        """

    @abstractmethod
    def store(self, slots: Tensor, x: Tensor) -> None:
        """Put the refined `x[n, C, H, W]` back into its `slots[n]` and move their time steps on."""

    def restart(self, drawn: Draw, bad: Tensor, generator: torch.Generator) -> Draw:
        """`drawn`, with the chains where `bad[n]` (bool) is true started again from `x ~ N(0, I)`.

        The watchdog calls it after every `draw`, with chains that are not finite or far out of the data's range; mostly
        none is. It must not wait for the device. What is returned is refined and stored, so that a buffer whose chains
        begin at a time step of their own, or that keeps more of a chain than `x`, overrides it.
        """
        import torch

        noise = torch.randn(drawn.x.shape, generator=generator, device=drawn.x.device)
        return drawn._replace(x=torch.where(bad.view(-1, 1, 1, 1), noise, drawn.x))

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain JSON values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; raises `ValueError` for a state that does not fit."""

    @classmethod
    def chain_length(cls, options: Any, context: Context, batch_size: int) -> float | None:
        """Training steps that a chain takes on average from its start to its end, or None where chains have no end.

        A shorter run hardly sees its own samples, which `ebmkit check` warns of.
        """
        return None

    @classmethod
    def redeal(cls, states: Sequence[Mapping[str, Any]], context: Context) -> dict[str, Any]:
        """The state of this rank, from those of all ranks of a run that had another number of them.

        No slot may be lost. By default every tensor has a row for each slot: the rows of all ranks are joined and cut
        into as many parts as there are ranks now, the first ones longer by one where they do not divide. Other values
        must be the same on all ranks; raises `ValueError` where they are not. Override it for other states, or raise
        `ValueError` where the slots cannot be dealt out anew: a run then goes on with as many ranks as before only.
        """
        from torch import Tensor, cat

        ranks, rank = context.world_size, context.rank
        parts: dict[str, Any] = {}
        for name, value in states[0].items():
            values = [state[name] for state in states]
            if isinstance(value, Tensor) and value.dim():
                rows = cat(values)
                first = rank * (len(rows) // ranks) + min(rank, len(rows) % ranks)
                parts[name] = rows[first : first + len(rows) // ranks + (rank < len(rows) % ranks)]
            elif any(bool(other != value) for other in values):
                raise ValueError(
                    f"the buffer's '{name}' differs between the ranks, and it does not say how to redeal it"
                )
            else:
                parts[name] = value
        return parts
