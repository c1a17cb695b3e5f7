"""What a computation costs on any machine: FLOPs, and bytes that its operators read and write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Cost(NamedTuple):
    """FLOPs of products and convolutions (a multiplication and an addition are two), and bytes read and written."""

    flops: float
    bytes: float

    def at(self, batch_size: int, two: Cost) -> Cost:
        """The cost of a larger batch, if this is that of one image and `two` that of two: both grow linearly."""
        return Cost(*(one + (batch_size - 1) * (more - one) for one, more in zip(self, two, strict=True)))


def cost_of(call: Callable[[], object]) -> Cost:
    """The cost of an eager `call`, which is carried out."""
    with _Counter() as counter:
        call()
    return Cost(counter.flops, counter.bytes)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Adds up torch's own FLOP formulas, and the sizes of what every operator but a view takes and gives.

    torch's `FlopCounterMode` watches modules with hooks, in which `autograd.grad` by the network's input fails.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.bytes = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        if not func.is_view:
            leaves = tree_leaves((args, kwargs, out))
            self.bytes += sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))
        return out
