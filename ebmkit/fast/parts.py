"""The parts of the fast path, and the choice of those that a device and a run deserve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ebmkit.options import FastOptions

COMPILED_FLOPS = 1e17
"""Floating-point operations from which compiling for a minute or two pays: about ten minutes of a large GPU."""


@dataclass(frozen=True)
class Parts:
    """What is used. The defaults are plain eager torch in float32."""

    precision: str = "float32"
    tf32: bool = False
    channels_last: bool = False
    winograd: bool = False
    concatenate: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    fused_optimizer: bool = False

    def __str__(self) -> str:
        names = [name for name in FastOptions.model_fields if getattr(self, name)]
        return ", ".join([self.precision, *names])


def choose(mode: str, precision: str, by_hand: FastOptions, device: str, flops: float | None = None) -> Parts:
    """The parts for `mode` ("auto", "max" or "off") on this device; what is set by hand is as it is set.

    `flops` is the work that a compilation would be for, as "auto" weighs it; None where that is not known.
    """
    kind = torch.device(device).type
    cuda, cpu, wanted = kind == "cuda", kind == "cpu", mode != "off"
    if precision == "auto":
        # Not on a CPU: torch's gradients of convolutions may be made of uninitialized memory there (docs: decisions).
        precision = "bf16" if wanted and cuda and native_bf16(device) else "float32"
    # On a CPU compiling has not made anything faster.
    long_enough = mode == "max" or (flops is not None and flops >= COMPILED_FLOPS)
    compiled = _either(by_hand.compile, wanted and cuda and long_enough)
    return Parts(
        precision=precision,
        tf32=_either(by_hand.tf32, wanted and cuda),
        channels_last=_either(by_hand.channels_last, wanted and (cuda or cpu)),
        # The compiler cannot see into these kernels.
        winograd=_either(by_hand.winograd, wanted and cpu and not compiled),
        concatenate=_either(by_hand.concatenate, wanted),
        compile=compiled,
        cuda_graphs=_either(by_hand.cuda_graphs, mode == "max" and cuda) and compiled,
        fused_optimizer=_either(by_hand.fused_optimizer, wanted and (cuda or cpu)),
    )


def native_bf16(device: str) -> bool:
    """Whether the device computes in bf16 itself. Where it does not, torch emulates it, on a CPU 30 times slower."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not public, and not in every version.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    tests: list[Callable[[], bool] | None] = [getattr(torch.cpu, name, None) for name in names]
    return kind == "cpu" and any(test is not None and test() for test in tests)


def _either(by_hand: str, chosen: bool) -> bool:
    return chosen if by_hand == "auto" else by_hand == "on"
