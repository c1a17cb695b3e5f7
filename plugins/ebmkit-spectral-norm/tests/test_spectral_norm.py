"""Spectral normalization: every weight's largest singular value comes to 1, and the model stays a model."""

from __future__ import annotations

import copy

import pytest
import torch
from ebmkit_spectral_norm.regularizer import SpectralNorm
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ebmkit import Context, EnergyModel
from ebmkit.testing import RegularizerContract


class Network(EnergyModel):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 5, 3, padding=1)
        self.norm = nn.GroupNorm(1, 5)
        self.time = nn.Linear(1, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.norm(self.conv(x)) + self.time(t.to(x.dtype).view(-1, 1))[..., None, None]
        return self.head(nn.functional.silu(h).mean((2, 3))).squeeze(1)


def prepared(power_iterations: int = 1) -> Network:
    model = Network()
    with torch.no_grad():
        model.conv.weight *= 7
        model.head.weight *= 0.1
    SpectralNorm(SpectralNorm.Options(power_iterations=power_iterations), Context((2, 6, 6), 4)).prepare(model)
    return model


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 2, 4])


def singular_values(model: Network) -> list[float]:
    layers = (model.conv, model.time, model.head)
    return [torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item() for layer in layers]


def test_after_some_training_forwards_every_weight_has_norm_one() -> None:
    model = prepared()
    for _ in range(60):
        model(*batch())
    assert singular_values(model) == pytest.approx([1.0, 1.0, 1.0], abs=1e-3)
    unprepared = Network()
    assert singular_values(unprepared) != pytest.approx([1.0, 1.0, 1.0], abs=1e-2)


def test_more_power_iterations_need_fewer_forwards() -> None:
    model = prepared(power_iterations=30)
    model(*batch())
    assert singular_values(model) == pytest.approx([1.0, 1.0, 1.0], abs=1e-3)


def test_evaluation_leaves_the_power_iteration_alone() -> None:
    model = prepared()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()(*batch())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.train()(*batch())
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_state_dict_changes_as_the_flag_says() -> None:
    assert SpectralNorm.changes_state_dict
    assert not SpectralNorm.needs_double_backward
    before, after = set(Network().state_dict()), set(prepared().state_dict())
    assert "conv.weight" in before - after
    assert "conv.parametrizations.weight.original" in after - before
    assert {"norm.weight", "conv.bias"} <= before & after
    model, other = prepared(), prepared()
    for _ in range(3):
        model(*batch())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(*batch()), model.eval()(*batch()))


def test_nothing_is_added_to_the_loss_and_parameters_keep_their_number() -> None:
    model = prepared()
    regularizer = SpectralNorm(SpectralNorm.Options(), Context((2, 6, 6), 4))
    assert regularizer.penalty(None, torch.Generator()) is None  # type: ignore[arg-type]
    count = sum(p.numel() for p in Network().parameters())
    assert sum(p.numel() for p in model.parameters()) == count


def test_double_backward_is_that_of_finite_differences() -> None:
    model = prepared().double().eval()
    x, t = batch()
    x = x.double()

    def penalty() -> Tensor:
        image = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(image, t).sum(), image, create_graph=True)
        return gradient.square().sum()

    penalty().backward()
    weight = model.conv.parametrizations.weight.original  # type: ignore[union-attr]
    index, step = (0, 0, 1, 1), 1e-5
    found = weight.grad[index].item()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[index] += sign * step
        values.append(penalty().item())
        with torch.no_grad():
            weight[index] -= sign * step
    assert found == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_several_forwards_share_one_backward_in_training_mode() -> None:
    model = prepared().train()
    x, t = batch()
    image = x.clone().requires_grad_()
    positive, negative = model(x, t), model(-x, t)
    (gradient,) = torch.autograd.grad(model(image, t).sum(), image, create_graph=True)
    (positive.mean() - negative.mean() + gradient.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_copies_are_independent() -> None:
    model = prepared()
    twin = copy.deepcopy(model)
    assert torch.equal(twin.eval()(*batch()), model.eval()(*batch()))
    with torch.no_grad():
        twin.conv.bias += 1.0  # type: ignore[operator]
        twin.conv.parametrizations.weight.original.mul_(-1.0)  # type: ignore[union-attr, operator]
    assert not torch.equal(twin(*batch()), model(*batch()))


def test_weights_can_be_averaged() -> None:
    model = prepared()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    original = model.conv.parametrizations.weight.original  # type: ignore[union-attr]
    before = original.detach().clone()
    average.update_parameters(model)
    with torch.no_grad():
        original += 1.0
    model(*batch())
    average.update_parameters(model)
    mean = average.module.conv.parametrizations.weight.original
    torch.testing.assert_close(mean, 0.9 * before + 0.1 * (before + 1.0))
    energies = average.eval()(*batch())
    assert energies.shape == (3,)
    assert energies.isfinite().all()


class TestSpectralNormContract(RegularizerContract):
    component = SpectralNorm
