"""The gradient penalties against closed forms, in float64: a linear energy's input gradient is its weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ebmkit_wgan.functional import gradient_norm, interpolate, one_sided, two_sided
from ebmkit_wgan.regularizers import WganGP, WganLP
from torch import Tensor, nn

from ebmkit import Context, Pairs, Term
from ebmkit.testing import RegularizerContract

SHAPE = (2, 3, 3)
CONTEXT = Context(SHAPE, 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(norm: float, seed: int = 0) -> Tensor:
    w = torch.randn(SHAPE, dtype=torch.float64, generator=generator(seed))
    return (w * (norm / w.norm())).requires_grad_()


def linear(w: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: (x * w).sum((1, 2, 3))


def pairs(energy: Any, batch: int = 5, t: Tensor | None = None) -> Pairs:
    x = torch.randn(2, batch, *SHAPE, dtype=torch.float64, generator=generator(7))
    return Pairs(energy, x[0], x[1], torch.ones(batch, dtype=torch.int64) if t is None else t)


def penalty(kind: type[WganLP] | type[WganGP], of: Pairs, weight: float = 200.0, norm: str = "sample") -> Term:
    return kind(kind.Options(weight=weight, norm=norm), CONTEXT).penalty(of, generator())


@pytest.mark.parametrize("norm", [0.0, 0.2, 1.0 - 1e-9])
def test_the_one_sided_penalty_is_exactly_zero_up_to_norm_one(norm: float) -> None:
    assert penalty(WganLP, pairs(linear(weights(norm)))).value.item() == 0.0


@pytest.mark.parametrize("norm", [1.3, 4.0])
@pytest.mark.parametrize("weight", [200.0, 3.0])
def test_the_one_sided_penalty_has_its_closed_form_above_norm_one(norm: float, weight: float) -> None:
    term = penalty(WganLP, pairs(linear(weights(norm))), weight)
    assert term.value.item() == pytest.approx(weight * (norm - 1) ** 2, rel=1e-12)


@pytest.mark.parametrize("norm", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("weight", [200.0, 0.5])
def test_the_two_sided_penalty_has_its_closed_form(norm: float, weight: float) -> None:
    term = penalty(WganGP, pairs(linear(weights(norm))), weight)
    assert term.value.item() == pytest.approx(weight * (norm - 1) ** 2, rel=1e-12, abs=1e-12)
    assert term.metrics["input_gradient_norm"].item() == pytest.approx(norm)
    assert term.metrics["penalty"].item() == term.value.item()
    assert not any(metric.requires_grad for metric in term.metrics.values())


def test_each_sample_has_its_own_norm_over_channels_and_pixels() -> None:
    w, t = weights(1.0), torch.tensor([1, 2, 3, 4])
    of = pairs(lambda x, t: t * (x * w).sum((1, 2, 3)), 4, t)
    norm = gradient_norm(of.energy, of.x_pos, t, "sample")
    torch.testing.assert_close(norm, t.double())
    # Norms 1, 2, 3 and 4: squares of 0, 1, 2 and 3. Any norm over the batch, or of the mean, gives another number.
    assert penalty(WganLP, of, 1.0).value.item() == pytest.approx((0 + 1 + 4 + 9) / 4)
    assert penalty(WganGP, of, 1.0).value.item() == pytest.approx((0 + 1 + 4 + 9) / 4)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_norm_per_pixel_is_over_channels_and_the_penalty_averages_pixels(scale: float) -> None:
    w = weights(scale * 3.0)
    per_pixel = w.detach().square().sum(0).sqrt()
    of = pairs(linear(w))
    norm = gradient_norm(of.energy, of.x_pos, of.t, "pixel")
    torch.testing.assert_close(norm, per_pixel.expand(5, 3, 3))
    gp, lp = (penalty(kind, of, 2.0, "pixel").value.item() for kind in (WganGP, WganLP))
    assert gp == pytest.approx(2 * (per_pixel - 1).square().mean().item())
    assert lp == pytest.approx(2 * (per_pixel - 1).clamp_min(0).square().mean().item())
    assert (gp == pytest.approx(lp)) == bool((per_pixel >= 1).all())


class Recorder:
    """An energy that keeps the images it is given."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.w = weights(2.0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append((x.detach(), t))
        return (x * self.w).sum((1, 2, 3))


def test_the_penalty_is_taken_on_the_segment_at_a_place_of_each_sample_s_own() -> None:
    recorder, batch = Recorder(), 4000
    x_pos = torch.randn(batch, *SHAPE, dtype=torch.float64, generator=generator(1))
    x_neg = x_pos + 4.0
    t = torch.arange(batch)
    penalty(WganLP, Pairs(recorder, x_pos, x_neg, t))
    ((xhat, seen_t),) = recorder.seen
    assert torch.equal(seen_t, t)
    a = (xhat - x_pos) / 4.0
    assert (a.flatten(1).std(1) < 1e-9).all(), "one place per sample"
    a = a.flatten(1).mean(1)
    assert a.min().item() >= -1e-9
    assert a.max().item() <= 1 + 1e-9
    assert a.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / batch))
    assert a.var().item() == pytest.approx(1 / 12, rel=0.1)
    quartiles = torch.histc(a, 4, 0, 1) / batch
    assert (quartiles - 0.25).abs().max().item() < 5 * math.sqrt(0.25 * 0.75 / batch)


def test_interpolation_runs_from_data_to_chains_and_is_detached() -> None:
    x_pos, x_neg = torch.full((3, *SHAPE), 2.0, requires_grad=True), torch.full((3, *SHAPE), 6.0)
    xhat = interpolate(x_pos, x_neg, torch.tensor([0.0, 0.25, 1.0]))
    assert xhat[:, 0, 0, 0].tolist() == [2.0, 3.0, 6.0]
    assert not xhat.requires_grad


@pytest.mark.parametrize("kind", [WganLP, WganGP])
def test_the_parameter_gradient_has_its_closed_form(kind: type[WganLP]) -> None:
    # d/dw (||w|| - 1)^2 = 2 (||w|| - 1) w / ||w||
    w = weights(1.5)
    penalty(kind, pairs(linear(w)), 10.0).value.backward()
    torch.testing.assert_close(w.grad, 10 * 2 * 0.5 * w.detach() / 1.5)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last = nn.Linear(18, 6).double(), nn.Linear(6, 1).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return (self.last(nn.functional.silu(3 * self.first(x.flatten(1)))) * t.view(-1, 1)).squeeze(1)


@pytest.mark.parametrize("norm", ["sample", "pixel"])
def test_the_parameter_gradient_of_a_network_is_that_of_finite_differences(norm: str) -> None:
    network = Network()
    of = pairs(network, 4, torch.tensor([1, 2, 3, 4]))

    def value() -> Tensor:
        return penalty(WganGP, of, 5.0, norm).value

    value().backward()
    for parameter in network.first.weight, network.last.weight:
        for index in ((0, 0), (0, 3)):
            original, step = parameter[index].item(), 1e-6
            outcomes = []
            for moved in (original + step, original - step):
                with torch.no_grad():
                    parameter[index] = moved
                outcomes.append(value().item())
            with torch.no_grad():
                parameter[index] = original
            slope = (outcomes[0] - outcomes[1]) / (2 * step)
            assert abs(slope) > 1e-3
            assert parameter.grad[index].item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("kind", [WganLP, WganGP])
@pytest.mark.parametrize("norm", ["sample", "pixel"])
def test_a_gradient_of_zero_gives_no_nan(kind: type[WganLP], norm: str) -> None:
    w = torch.zeros(SHAPE, dtype=torch.float64, requires_grad=True)
    term = penalty(kind, pairs(linear(w)), 1.0, norm)
    term.value.backward()
    assert term.value.item() == (1.0 if kind is WganGP else 0.0)
    assert w.grad is not None
    assert w.grad.isfinite().all()


class FixedGradient(torch.autograd.Function):
    """An energy whose backward is a constant, as in code that was written without a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(w)
        return (x * w).sum((1, 2, 3))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (w,) = ctx.saved_tensors
        return grad.view(-1, 1, 1, 1) * w, None


def test_an_energy_without_a_second_derivative_is_refused() -> None:
    w = weights(2.0)

    def detached(x: Tensor, t: Tensor) -> Tensor:
        return (x * w.detach()).sum((1, 2, 3)) + w.sum()

    with pytest.raises(RuntimeError, match="double backward"):
        penalty(WganLP, pairs(detached))
    with pytest.raises(RuntimeError, match="double backward"):
        penalty(WganGP, pairs(lambda x, t: FixedGradient.apply(x, w)))


def test_an_energy_that_is_curved_in_x_alone_is_accepted() -> None:
    term = penalty(WganLP, pairs(lambda x, t: x.square().sum((1, 2, 3))))
    assert term.value.item() > 0


def test_the_penalty_works_under_no_grad_and_leaves_no_parameter_gradient() -> None:
    w = weights(2.0)
    with torch.no_grad():
        norm = gradient_norm(linear(w), pairs(linear(w)).x_pos, torch.ones(5), "sample")
    torch.testing.assert_close(norm.detach(), torch.full((5,), 2.0, dtype=torch.float64))
    assert w.grad is None


def test_the_measures_of_known_norms() -> None:
    norm = torch.tensor([0.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    assert one_sided(norm).item() == 1.0
    assert two_sided(norm).item() == (1 + 0.25 + 0 + 4) / 4


def test_only_a_weighted_norm_per_sample_bounds_the_gradient() -> None:
    for kind in (WganLP, WganGP):
        assert kind.needs_double_backward
        assert kind.gradient_bound(kind.Options()) == pytest.approx(1.05)
        assert kind.gradient_bound(kind.Options(norm="pixel")) is None
        assert kind.gradient_bound(kind.Options(weight=0.0)) is None
    with pytest.raises(ValueError, match="weight"):
        WganLP.Options(weight=-1.0)


class TestWganLPContract(RegularizerContract):
    component = WganLP


class TestWganGPContract(RegularizerContract):
    component = WganGP


class TestWganLPPerPixelContract(RegularizerContract):
    component = WganLP
    options = {"norm": "pixel", "weight": 3.0}
