"""3x3 convolutions with a quarter of the multiplications, for float32 on a CPU; differentiable any number of times.

Convolution and its weight gradient are bilinear, and the derivatives of each are the two of them again:

    y = x * w           dx = dy * w'        dw = grad(x, dy)
    dw = grad(x, dy)    dx = dy * c'        d(dy) = x * c       for a cotangent c of dw

where `w'` is the adjoint convolution (in and out swapped, the kernel turned by 180 degrees).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import conv2d

from ebmkit.fast.winograd import kernels


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d(x[B, C, H, W], weight[O, C, 3, 3], bias[O], padding=1)`, `[B, O, H, W]` in channels_last.

    Where not all are float32 on the CPU, or autocast is on, torch's own convolution computes it, or says what is wrong.
    """
    if not _suit(x, weight, bias) or torch.is_autocast_enabled("cpu") or _transformed():
        return conv2d(x, weight, bias, padding=1)
    y: Tensor = _Convolution.apply(x, weight, bias, False)
    return y


def _suit(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernels may be given these: they look at nothing but the numbers."""
    given = (x, weight) if bias is None else (x, weight, bias)
    right = all(value.dtype == torch.float32 and value.device.type == "cpu" for value in given)
    fits = x.ndim == 4 and x.numel() > 0 and x.shape[1] == weight.shape[1]
    return right and fits and (bias is None or bias.shape == weight.shape[:1])


def _transformed() -> bool:
    """Whether forward-mode differentiation or a transform of `torch.func` is at work, which ours do not support."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


class _Convolution(torch.autograd.Function):
    """`x * w + bias`, or with `adjoint` `x * w' + bias`."""

    # A separate `setup_context` would cost torch a look at the signature with every call, 0.1 ms.
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias, ctx.adjoint = bias is not None, adjoint
        return kernels.convolve(x.contiguous(memory_format=torch.channels_last), weight, bias, adjoint)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        x, weight = ctx.saved_tensors
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dx = _Convolution.apply(dy, weight, None, not ctx.adjoint)
        if ctx.needs_input_grad[1]:
            dw = _WeightGradient.apply(dy, x) if ctx.adjoint else _WeightGradient.apply(x, dy)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            db = dy.sum((0, 2, 3))
        return dx, dw, db, None


class _WeightGradient(torch.autograd.Function):
    """`grad(x, dy)`: `[O, C, 3, 3]` of `x[B, C, H, W]` and `dy[B, O, H, W]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dy: Tensor) -> Tensor:
        ctx.save_for_backward(x, dy)
        x, dy = (value.contiguous(memory_format=torch.channels_last) for value in (x, dy))
        return kernels.weight_gradient(x, dy)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (cotangent,) = grads
        x, dy = ctx.saved_tensors
        dx = ddy = None
        if ctx.needs_input_grad[0]:
            dx = _Convolution.apply(dy, cotangent, None, True)
        if ctx.needs_input_grad[1]:
            ddy = _Convolution.apply(x, cotangent, None, False)
        return dx, ddy
