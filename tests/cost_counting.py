"""What a step costs, in numbers that do not depend on the machine's speed: counted, not timed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
WAITING = frozenset(
    {
        aten._local_scalar_dense,
        aten.equal,
        aten.is_nonzero,
        aten.masked_select,
        aten.nonzero,
        aten._unique2,
        aten.unique_consecutive,
        aten.unique_dim,
    }
)
"""Operators whose result the host needs at once, a number or a shape: with a GPU they wait for it."""
INDEXING = frozenset({aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_})
"""These look for the true places of a mask, and then wait, too."""


@dataclass(frozen=True)
class Cost:
    """FLOPs, operator calls, the calls among them that wait for a device, and peak bytes of tensors made on the way."""

    flops: int
    operator_calls: int
    waits: int
    peak_bytes: int

    def to_plain(self) -> dict[str, int]:
        """As JSON values."""
        return asdict(self)


def cost_of(work: Callable[[], object]) -> Cost:
    """Run `work` once and count."""
    counter = _Counter()
    with _no_garbage_collection(), counter:
        work()
    return Cost(counter.flops, counter.calls, counter.waits, counter.peak)


class _Counter(TorchDispatchMode):
    """Counts operator calls and their FLOPs, and follows the storages that they make until each is freed.

    The FLOPs are torch's formulas for convolutions and matrix products. (`FlopCounterMode` itself hooks modules, and
    `autograd.grad` refuses its hooks.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.calls = self.waits = self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._follow(tensor, new=False)
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        self.waits += _waits(func, args)
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        for tensor in _tensors(result):
            self._follow(tensor, new=True)
        return result

    def _follow(self, tensor: torch.Tensor, new: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        size = storage.nbytes() if new else 0
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def _waits(func: Any, args: tuple[Any, ...]) -> bool:
    if func.overloadpacket in INDEXING:
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in _tensors(args[1]))
    return func.overloadpacket in WAITING


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Otherwise chance decides when reference cycles are freed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
