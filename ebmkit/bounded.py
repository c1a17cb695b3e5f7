"""Energies that others declared: built in memory in proportion to their file, used in what memory there is."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from ebmkit.errors import BadInput

TIMES = 4
"""Networks may make weights that they replace again, such as the norms of a backbone."""
SPARE_BYTES, SPARE_PARAMETERS = 2**26, 1000
"""What any network may make."""
LARGE_IMAGE = 2**18
GIB = 2**30

_SIZED = {torch.empty: 0, torch.zeros: 0, torch.ones: 0, torch.rand: 0, torch.randn: 0, torch.full: 0}
_SIZED |= {Tensor.new_empty: 1, Tensor.new_zeros: 1, Tensor.new_ones: 1, Tensor.new_full: 1}
"""Functions that take memory, and where their arguments begin to say how much."""


@contextmanager
def bounded_building(parameters: int, size: int) -> Iterator[None]:
    """Within, networks may be little larger than a file of so many `parameters` (tensors), `size` bytes in all.

    Raises `BadInput` for one that would be, before it takes the memory.
    """
    message = "its recipe declares a far larger network than the one whose weights it holds"
    left, thread = TIMES * parameters + SPARE_PARAMETERS, threading.get_ident()

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal left
        if threading.get_ident() == thread:
            left -= 1
            if left < 0:
                raise BadInput(message)

    hook = register_module_parameter_registration_hook(count)
    try:
        # Not by building it on torch's device `meta`: that imports sympy, 2 s for each sample that is drawn.
        with _Bounded(TIMES * size + SPARE_BYTES, message):
            yield
    finally:
        hook.remove()


class _Bounded(TorchFunctionMode):
    """Counts the bytes that functions of torch are asked for."""

    def __init__(self, size: int, message: str) -> None:
        super().__init__()
        self.most = self.left = size
        self.message = message

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _SIZED:
            self.left -= 4 * _count(kwargs.get("size", args[_SIZED[func] :]) if kwargs else args[_SIZED[func] :])
            self._check(self.left)
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            # Views and broadcasts, too: none of them is larger than what all weights may be.
            self._check(self.most - result.numel() * result.element_size())
        return result

    def _check(self, left: int) -> None:
        if left < 0:
            raise BadInput(self.message)


def _count(size: Any) -> int:
    """The product of a size as torch takes it: `(2, 3)`, `((2, 3),)`, or `((2, 3), value)`."""
    if isinstance(size, Sequence) and size and isinstance(size[0], Sequence):
        size = size[0]
    return math.prod(n for n in size if isinstance(n, int)) if isinstance(size, Sequence) else 0


def image_bytes(energy: nn.Module, shape: tuple[int, int, int]) -> int:
    """The bytes at least that an image of `shape` (C, H, W) takes while it is drawn: its own and its gradient's.

    For an energy that was not prepared for speed yet.
    """
    own = 4 * math.prod(shape)
    # What small images take is less than the 2 s are worth for which sympy is imported.
    return own if own < LARGE_IMAGE else 2 * own + _gradient_bytes(energy, shape)


def _gradient_bytes(energy: nn.Module, shape: tuple[int, int, int]) -> int:
    """What autograd keeps of one image until its gradient is there; 0 where unknown. On torch's device `meta`."""
    weights = {name: torch.empty_like(value, device="meta") for name, value in energy.state_dict().items()}
    weights |= {name: torch.empty_like(value, device="meta") for name, value in energy.named_buffers()}
    own = {_place(value) for value in weights.values()}
    # Kept alive: a later tensor must not get the place of an earlier one.
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        kept.setdefault(_place(value), value)
        return value

    x = torch.empty(1, *shape, device="meta", requires_grad=True)
    t = torch.ones(1, dtype=torch.int64, device="meta")
    # Whatever an energy does that `meta` cannot: numbers are looked at, or kernels are its own.
    with suppress(RuntimeError, NotImplementedError, TypeError, ValueError):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), torch.enable_grad():
            torch.func.functional_call(energy, weights, (x, t))
        return sum(value.untyped_storage().nbytes() for place, value in kept.items() if place not in own)
    return 0


def _place(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)


def memory_of(device: str) -> int:
    """All bytes of memory that a device has, of the CPU those that this process may use."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        # A container's limit; the file says "max" where there is none.
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return whole
