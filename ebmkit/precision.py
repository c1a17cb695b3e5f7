"""Computing in fewer bits where that is enough."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """torch's autocast to bf16 on this device, or nothing for "float32"."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16")


def keep_energies_in_float32(model: nn.Module, precision: str) -> None:
    """Let the network give float32 energies under autocast: their differences are small against bf16's steps."""
    if precision == "bf16":
        model.register_forward_hook(_in_float32)


@contextmanager
def tf32(device: str, allowed: bool) -> Iterator[None]:
    """On a GPU, let float32 products and convolutions use TF32 or not; both settings are given back.

    Compiled code is compiled anew under another setting, so that it has to be compiled within this, too.
    """
    wanted = ("high" if allowed else "highest", allowed)
    if torch.device(device).type != "cuda" or (before := _tf32()) == wanted:
        yield
        return
    _set_tf32(*wanted)
    try:
        yield
    finally:
        _set_tf32(*before)


@contextmanager
def _older_way() -> Iterator[None]:
    """torch has a newer way to say this, which must not be mixed with the older one that plugins may use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings", UserWarning)
        yield


def _tf32() -> tuple[str, bool]:
    # Without `_older_way`, which would make Python repeat warnings: this is called in every step.
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def _set_tf32(products: str, convolutions: bool) -> None:
    with _older_way():
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def _in_float32(module: nn.Module, inputs: object, energy: Tensor) -> Tensor:
    return energy.float()
