"""Energies and gradients the eager way: what everybody gets who asks for `energy_gradient`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ebmkit import energy_gradient
from ebmkit.fast.energy import FastEnergy, both_energies
from ebmkit.fast.parts import Parts
from ebmkit.pipeline import build_energy, frozen
from run_helpers import tiny_recipe

X = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
T = torch.tensor([1, 4, 2, 2, 3])


@pytest.fixture
def model() -> nn.Module:
    recipe = tiny_recipe("digits")
    return build_energy(recipe, recipe.context("cpu"), [])


@pytest.fixture(params=["module", "function", "FastEnergy"])
def energy(request: pytest.FixtureRequest, model: nn.Module) -> object:
    return {"module": model, "function": lambda x, t: model(x, t), "FastEnergy": FastEnergy(model, Parts())}[
        request.param
    ]


def expected(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Image by image, in float64."""
    wide, found = copy.deepcopy(model).double(), []
    for image, step in zip(x.double(), t, strict=True):
        leaf = image[None].clone().requires_grad_()
        found.append(torch.autograd.grad(wide(leaf, step[None])[0], leaf)[0][0])
    return torch.stack(found)


@pytest.mark.parametrize("grad_mode", [True, False], ids=["gradients on", "no_grad"])
@pytest.mark.parametrize("leaf", [True, False], ids=["x needs gradients", "x needs none"])
def test_the_gradient_is_each_images_own_and_leaves_no_trace(
    energy: nn.Module, model: nn.Module, grad_mode: bool, leaf: bool
) -> None:
    x = X.clone().requires_grad_(leaf)
    with torch.set_grad_enabled(grad_mode):
        gradient = energy_gradient(energy, x, T)
        assert torch.is_grad_enabled() == grad_mode
    assert not gradient.requires_grad
    torch.testing.assert_close(gradient.double(), expected(model, X, T), rtol=1e-4, atol=1e-6)
    assert x.requires_grad == leaf
    assert x.grad is None
    assert torch.equal(x, X)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_it_works_where_the_parameters_are_frozen(energy: nn.Module, model: nn.Module) -> None:
    with frozen(model), torch.no_grad():
        gradient = energy_gradient(energy, X, T)
    torch.testing.assert_close(gradient.double(), expected(model, X, T), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("grad_mode", [True, False], ids=["gradients on", "no_grad"])
def test_with_create_graph_it_trains_the_parameters(energy: nn.Module, model: nn.Module, grad_mode: bool) -> None:
    parameters = list(model.parameters())
    with torch.set_grad_enabled(grad_mode):
        gradient = energy_gradient(energy, X, T, create_graph=True)
    found = torch.autograd.grad(gradient.square().sum(), parameters, allow_unused=True)
    wide = copy.deepcopy(model).double()
    x = X.double().requires_grad_()
    (slope,) = torch.autograd.grad(wide(x, T).sum(), x, create_graph=True)
    theirs = torch.autograd.grad(slope.square().sum(), list(wide.parameters()), allow_unused=True)
    assert any(value is not None for value in found)
    for ours, value in zip(found, theirs, strict=True):
        assert (ours is None) == (value is None)
        if ours is not None and value is not None:
            assert float((ours.double() - value).norm()) <= 1e-4 * float(value.norm()) + 1e-7
    assert all(parameter.grad is None for parameter in parameters)


class Counted(nn.Module):
    """Passes on to a network, and counts."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.batches = inner, list[int]()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.batches.append(len(x))
        energy: Tensor = self.inner(x, t)
        return energy


def test_both_energies_in_one_batch_are_those_of_two(model: nn.Module) -> None:
    counted, other = Counted(model), X.flip(0)
    apart = both_energies(FastEnergy(counted, Parts()), X, other, T)
    assert counted.batches == [5, 5]
    together = both_energies(FastEnergy(counted, Parts(concatenate=True)), X, other, T)
    assert counted.batches == [5, 5, 10]
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)
    assert float((apart[0] - apart[1]).detach().abs().max()) > 1e-3, "the two differ"
    torch.testing.assert_close(apart, (model(X, T), model(other, T)), rtol=0, atol=0)


def test_any_function_is_evaluated_twice(model: nn.Module) -> None:
    counted = Counted(model)
    both_energies(counted, X, X, T)
    assert counted.batches == [5, 5]
