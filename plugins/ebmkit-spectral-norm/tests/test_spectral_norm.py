"""Spectral normalization, on a network with convolutions and linear layers."""

from __future__ import annotations

import copy

import pytest
import torch
from ebmkit_spectral_norm.regularizer import SpectralNorm
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ebmkit import Context, EnergyModel

SHAPE = (2, 4, 4)


class Small(EnergyModel):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.GroupNorm(1, 6)
        self.out = nn.Linear(6 * 16, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        energy: Tensor = self.out(nn.functional.silu(self.norm(self.conv(x))).flatten(1)).squeeze(1)
        return energy


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    small = Small()
    with torch.no_grad():
        small.conv.weight.mul_(9)
        small.out.weight.mul_(0.01)
    SpectralNorm(SpectralNorm.Options(power_iterations=3), Context(SHAPE, 1)).prepare(small)
    return small


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(3, *SHAPE), torch.ones(3, dtype=torch.int64)


def test_every_weight_comes_to_spectral_norm_one(model: Small) -> None:
    for _ in range(30):
        model(*batch())
    for layer in (model.conv, model.out):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-2)


def test_norms_and_biases_are_left_alone(model: Small) -> None:
    changed = {name.split(".")[0] for name in model.state_dict() if "parametrizations" in name}
    assert changed == {"conv", "out"}
    assert "conv.bias" in model.state_dict()


def test_the_state_dict_changes_as_the_flag_says(model: Small) -> None:
    assert SpectralNorm.changes_state_dict
    with pytest.raises(RuntimeError):
        model.load_state_dict(Small().state_dict())


def test_it_can_be_differentiated_twice(model: Small) -> None:
    x, t = batch()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model(x, t).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    weight = model.conv.parametrizations.weight.original
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


def test_evaluation_does_not_move_the_power_iteration(model: Small) -> None:
    model.eval()
    before = copy.deepcopy(model.state_dict())
    model(*batch())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_averaging_the_weights_works(model: Small) -> None:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for _ in range(3):
        with torch.no_grad():
            model.out.parametrizations.weight.original.add_(0.1)
        model(*batch())
        average.update_parameters(model)
    x, t = batch()
    average.module.eval()
    assert average.module(x, t).isfinite().all()
    assert torch.equal(average.module.conv.parametrizations.weight[0]._u, model.conv.parametrizations.weight[0]._u)


def test_it_adds_no_penalty() -> None:
    assert SpectralNorm(SpectralNorm.Options(), Context(SHAPE, 1)).penalty(None, None) is None  # type: ignore[arg-type]
