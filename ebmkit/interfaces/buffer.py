"""The interface of replay buffers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ebmkit.interfaces.base import Component

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

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain JSON values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; raises `ValueError` for a state that does not fit."""
