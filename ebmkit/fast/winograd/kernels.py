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
GAP = 48
"""Floats between planes of transformed images: at a power of two they would compete for the same lines of the cache."""
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
    compiler = shlex.split(os.environ.get("CC", "cc"))
    with tempfile.TemporaryDirectory(prefix="ebmkit-") as folder:
        target = Path(folder) / "winograd.so"
        command = [*compiler, *FLAGS, f"-DPANEL={panel}", str(SOURCE), "-o", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
            return ctypes.CDLL(str(target))
        except FileNotFoundError as error:
            raise NoKernels(f"there is no C compiler '{compiler[0]}'") from error
        except subprocess.CalledProcessError as error:
            told = error.stderr.decode(errors="replace").strip().splitlines()
            raise NoKernels(f"the C compiler '{compiler[0]}' failed: {told[0] if told else error}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoKernels(f"the C compiler '{compiler[0]}' failed: {error}") from error


def tiles(x: Tensor) -> int:
    """Tiles of 4x4 pixels in the images `x[B, C, H, W]`."""
    batch, _, height, width = x.shape
    return batch * -(-height // 4) * -(-width // 4)


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
    own.transform_weight(_data(weight), _data(u), *sizes, int(adjoint), threads)
    sizes = _sizes(batch, height, width, in_channels, out_channels)
    if own.convolve(_data(x), _data(u), _data(bias), _data(y), *sizes, threads):
        raise MemoryError("no memory for a convolution")
    return y


def transform_images(x: Tensor) -> Tensor:
    """`B^T d B`: `x[B, C, H, W]` in channels_last -> `[36, tiles, C]`."""
    out = _planes(tiles(x), x.shape[1])
    _for(x.shape[1]).transform_images(_data(x), _data(out), *_nhwc(x), *_sizes(out.stride(0)), torch.get_num_threads())
    return out


def transform_gradients(y: Tensor) -> Tensor:
    """`A y A^T`: `y[B, C, H, W]` in channels_last -> `[36, tiles, C]`."""
    out, own = _planes(tiles(y), y.shape[1]), _for(y.shape[1])
    own.transform_gradients(_data(y), _data(out), *_nhwc(y), *_sizes(out.stride(0)), torch.get_num_threads())
    return out


def weight_adjoint(u: Tensor) -> Tensor:
    """`G^T u G`: `u[36, C, O]` -> `[O, C, 3, 3]`."""
    _, in_channels, out_channels = u.shape
    out = torch.empty(out_channels, in_channels, 3, 3)
    sizes = _sizes(in_channels, out_channels)
    _for(out_channels).weight_adjoint(_data(u), _data(out), *sizes, torch.get_num_threads())
    return out


def panel_for(*channels: int) -> int | None:
    """The widest panel for these numbers of channels, or None where they are not multiples of `LANES`."""
    return next((panel for panel in PANELS if not any(count % (LANES * panel) for count in channels)), None)


def _for(*channels: int) -> ctypes.CDLL:
    panel = panel_for(*channels)
    assert panel is not None  # only such convolutions are replaced
    return library(panel)


def _planes(rows: int, columns: int) -> Tensor:
    """`[36, rows, columns]`, uninitialized, with a gap after each of the 36."""
    plane = rows * columns + GAP
    return torch.empty(36 * plane).as_strided((36, rows, columns), (plane, columns, 1))


def _data(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _nhwc(x: Tensor) -> tuple[ctypes.c_long, ...]:
    batch, channels, height, width = x.shape
    return _sizes(batch, height, width, channels)


def _sizes(*values: int) -> tuple[ctypes.c_long, ...]:
    return tuple(map(ctypes.c_long, values))
