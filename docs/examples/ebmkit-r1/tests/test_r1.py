"""The regularizer `r1`: the contract for regularizers, and its equation."""

from __future__ import annotations

import pytest
import torch
from ebmkit import Context, Pairs
from ebmkit.testing import RegularizerContract
from torch import Tensor

from ebmkit_r1.regularizer import R1


class TestR1Contract(RegularizerContract):
    """The rules for every regularizer."""

    component = R1
    options = {"weight": 2.0}


@pytest.mark.parametrize("weight", [0.0, 0.5, 4.0])
def test_the_penalty_is_that_of_the_equation(weight: float) -> None:
    """On `f = s/2 |x|^2` the gradient is `s x`, so that R1 is `weight / 2 * s^2 * mean |x_pos|^2`."""
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def energy(x: Tensor, t: Tensor) -> Tensor:
        return scale / 2 * x.square().sum((1, 2, 3))

    x_pos = torch.randn(5, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = Pairs(energy, x_pos, torch.zeros_like(x_pos), torch.ones(5, dtype=torch.int64))
    regularizer = R1(R1.Options(weight=weight), Context((1, 2, 2), time_steps=3))
    value = regularizer.penalty(pairs, torch.Generator()).value
    squared = x_pos.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(value, weight / 2 * 9 * squared)
    value.backward()
    torch.testing.assert_close(scale.grad, weight * 3 * squared)
