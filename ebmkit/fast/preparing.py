"""Preparing a network for the parts that were chosen."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ebmkit.fast.energy import Say
from ebmkit.fast.parts import Parts, native_bf16
from ebmkit.fast.winograd.installing import install
from ebmkit.fast.winograd.kernels import NoKernels
from ebmkit.precision import keep_energies_in_float32


def prepare(model: nn.Module, parts: Parts, device: str, say: Say) -> Parts:
    """Change the network in place as `parts` want it; returns the parts that could be had on this machine."""
    keep_energies_in_float32(model, parts.precision)
    if parts.precision == "bf16" and not native_bf16(device):
        say(f"warning: {device} has no bf16 of its own and emulates it, many times slower; train.precision = 'float32'")
    if parts.channels_last:
        model.to(memory_format=torch.channels_last)
    if parts.winograd:
        try:
            parts = replace(parts, winograd=install(model) > 0)
        except NoKernels as error:
            say(f"warning: convolutions are torch's own, about half as fast: {error}; fast.winograd = 'off' says so")
            parts = replace(parts, winograd=False)
    return parts


def forward_flops(model: nn.Module, shape: tuple[int, int, int], device: str) -> float:
    """Floating-point operations of one evaluation of one image of `shape` (C, H, W)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape, device=device), torch.ones(1, dtype=torch.int64, device=device))
    return float(counter.get_total_flops())
