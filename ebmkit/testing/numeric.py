"""Derivatives checked by differences, and comparisons with a tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that training changes."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether two tensors agree within `tolerance`, relative to their largest value."""
    return bool((a - b).abs().max() <= tolerance * torch.maximum(a.abs().max(), b.abs().max()) + 1e-12)


def central_difference(f: Callable[[float], Tensor], step: float = 1e-5) -> Tensor:
    """`f'(0)`, for float64 functions of a scalar."""
    return (f(step) - f(-step)) / (2 * step)


def parameter_gradient(value: Tensor, model: nn.Module) -> list[Tensor]:
    """The gradient of a scalar by each trainable parameter; zeros where there is none."""
    parameters = trainable(model)
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def along_parameters(f: Callable[[], Tensor], model: nn.Module, gradient: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """How `f` changes along a direction in parameter space, by difference and by its `gradient` (float64).

    The direction has a part along the gradient, so that the slope is not small by chance.
    """
    random = torch.Generator().manual_seed(0)
    other = [torch.randn(g.shape, generator=random, dtype=g.dtype) for g in gradient]
    direction = [g / _length(gradient) + r / _length(other) / 2 for g, r in zip(gradient, other, strict=True)]
    parameters = trainable(model)
    kept = [parameter.detach().clone() for parameter in parameters]

    def moved(step: float) -> Tensor:
        with torch.no_grad():
            for parameter, value, along in zip(parameters, kept, direction, strict=True):
                parameter.copy_(value + step * along)
        return f().detach()

    # So small that no kink of a piecewise linear network lies between; float64 has digits enough.
    slope = central_difference(moved, 1e-8)
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    expected = torch.stack([(g * along).sum() for g, along in zip(gradient, direction, strict=True)]).sum()
    return slope, expected


def _length(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.square().sum() for value in values]).sum().sqrt() + 1e-12
