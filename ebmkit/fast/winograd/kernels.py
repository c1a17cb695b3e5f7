"""The functions of `winograd.c`, compiled for this machine when they are first needed."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("winograd.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-w")
LANES = 8
PANELS = (2, 1)
"""Numbers of channels are multiples of LANES, times one of these."""
TIMEOUT = 60.0
"""Seconds for the compiler, which takes less than one."""


class NoKernels(Exception):
    """The functions cannot be compiled here; the message says why."""


@cache
def library(panel: int) -> ctypes.CDLL:
    """The functions, for multiples of `LANES * panel` channels; raises `NoKernels`.

    Every process compiles them anew, in half a second: a file that is kept would have to be kept apart for each
    kind of processor, and be guarded against whoever else can write there.
    """
    try:
        compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
        with tempfile.TemporaryDirectory(prefix="ebmkit-") as folder:
            return _compiled(compiler, panel, Path(folder) / "winograd.so")
    except (OSError, ValueError) as error:
        raise NoKernels(f"the kernels cannot be compiled: {error}") from error


def _compiled(compiler: list[str], panel: int, target: Path) -> ctypes.CDLL:
    command = [*compiler, *FLAGS, f"-DPANEL={panel}", str(SOURCE), "-o", str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise NoKernels(f"there is no C compiler '{compiler[0]}'") from error
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip().splitlines()
        raise NoKernels(f"the C compiler '{compiler[0]}' failed: {told[0] if told else error}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernels(f"the C compiler '{compiler[0]}' failed: {error}") from error
    return ctypes.CDLL(str(target))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
    """`x[B, C, H, W] * weight[O, C, 3, 3] + bias[O]`, `[B, O, H, W]`, both in channels_last.

    With `adjoint` the adjoint convolution: `x` has O channels and the result has C.
    """
    out_channels, in_channels, *_ = weight.shape
    strides = weight.stride()
    if adjoint:
        out_channels, in_channels = in_channels, out_channels
        strides = strides[1], strides[0], *strides[2:]
    batch, _, height, width = x.shape
    u = torch.empty(36 * in_channels * out_channels)
    y = torch.empty((batch, out_channels, height, width), memory_format=torch.channels_last)
    own, threads = _for(in_channels, out_channels), torch.get_num_threads()
    sizes = _sizes(in_channels, out_channels, *strides)
    if bias is not None:
        bias = bias.contiguous()
    own.transform_weight(_data(weight), _data(u), *sizes, int(adjoint), threads)
    sizes = _sizes(batch, height, width, in_channels, out_channels)
    if own.convolve(_data(x), _data(u), _data(bias), _data(y), *sizes, threads):
        raise MemoryError("no memory for a convolution")
    return y


def weight_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """The gradient by the weights, `[O, C, 3, 3]`, of `x[B, C, H, W]` and `dy[B, O, H, W]`, both in channels_last."""
    batch, in_channels, height, width = x.shape
    out_channels = dy.shape[1]
    out = torch.empty(out_channels, in_channels, 3, 3)
    sizes = _sizes(batch, height, width, in_channels, out_channels)
    own = _for(in_channels, out_channels)
    if own.weight_gradient(_data(x), _data(dy), _data(out), *sizes, torch.get_num_threads()):
        raise MemoryError("no memory for the gradient of a convolution")
    return out


def panel_for(*channels: int) -> int | None:
    """The widest panel for these numbers of channels, or None where they are not multiples of `LANES`."""
    return next((panel for panel in PANELS if not any(count % (LANES * panel) for count in channels)), None)


def _for(*channels: int) -> ctypes.CDLL:
    panel = panel_for(*channels)
    assert panel is not None  # only such convolutions are replaced
    return library(panel)


def _data(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _sizes(*values: int) -> tuple[ctypes.c_long, ...]:
    return tuple(map(ctypes.c_long, values))
