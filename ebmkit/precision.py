"""Computing in bf16 where that is enough."""

from __future__ import annotations

from contextlib import AbstractContextManager

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


def _in_float32(module: nn.Module, inputs: object, energy: Tensor) -> Tensor:
    return energy.float()
