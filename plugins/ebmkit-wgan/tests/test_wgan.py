"""Gradient penalties on energies whose gradient is known."""

from __future__ import annotations

import pytest
import torch
from ebmkit_wgan.functional import gradient_norm, interpolate, one_sided, two_sided
from ebmkit_wgan.regularizers import WganGP, WganLP
from torch import Tensor, nn

from ebmkit import Context, EnergyFunction, Pairs

SHAPE = (3, 2, 2)
D = 12


class Linear(nn.Module):
    """`f(x, t) = w . x`, whose input gradient is `w` everywhere."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((D,), norm / D**0.5, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x.flatten(1) @ self.w


def pairs(energy: EnergyFunction, count: int = 5) -> Pairs:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, count, *SHAPE, generator=random, dtype=torch.float64)
    return Pairs(energy, x[0], x[1], torch.ones(count, dtype=torch.int64))


def penalty(kind: type[WganLP] | type[WganGP], energy: EnergyFunction, **options: object) -> Tensor:
    regularizer = kind(kind.Options(**options), Context(SHAPE, 1))
    return regularizer.penalty(pairs(energy), torch.Generator().manual_seed(1)).value


@pytest.mark.parametrize("norm", [0.2, 0.999])
def test_lp_is_zero_where_the_gradient_is_at_most_one(norm: float) -> None:
    assert penalty(WganLP, Linear(norm)).item() == 0.0


@pytest.mark.parametrize("norm", [1.5, 4.0])
def test_lp_above_one_is_the_closed_form(norm: float) -> None:
    assert penalty(WganLP, Linear(norm), weight=200.0).item() == pytest.approx(200 * (norm - 1) ** 2)


@pytest.mark.parametrize("norm", [0.2, 1.0, 4.0])
def test_gp_is_the_closed_form_on_both_sides(norm: float) -> None:
    assert penalty(WganGP, Linear(norm), weight=10.0).item() == pytest.approx(10 * (norm - 1) ** 2)


@pytest.mark.parametrize("kind", [WganLP, WganGP])
def test_the_parameter_gradient_is_the_closed_form(kind: type[WganLP] | type[WganGP]) -> None:
    # d/dw lambda (|w| - 1)^2 = 2 lambda (|w| - 1) w / |w|
    energy = Linear(3.0)
    penalty(kind, energy, weight=7.0).backward()
    torch.testing.assert_close(energy.w.grad, 2 * 7.0 * (3.0 - 1) * energy.w.detach() / 3.0)


@pytest.mark.parametrize("kind", [WganLP, WganGP])
@pytest.mark.parametrize("norm", ["sample", "pixel"])
def test_the_parameter_gradient_of_a_network_agrees_with_finite_differences(
    kind: type[WganLP] | type[WganGP], norm: str
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.SiLU(), nn.Linear(8, 1)).double()
    with torch.no_grad():
        net[1].weight.mul_(6)

    def value() -> Tensor:
        return penalty(kind, lambda x, t: net(x).squeeze(1), weight=1.0, norm=norm)

    value().backward()
    weight, step = net[1].weight, 1e-6
    for place in [(0, 0), (3, 5), (7, 11)]:
        analytic = weight.grad[place].item()
        with torch.no_grad():
            weight[place] += step
            above = value().item()
            weight[place] -= 2 * step
            below = value().item()
            weight[place] += step
        assert analytic == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-9)
    assert weight.grad.abs().max() > 0


def test_the_norm_is_per_sample_over_channels_height_and_width() -> None:
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)

    def energy(x: Tensor, t: Tensor) -> Tensor:
        return scale * x.flatten(1).sum(1)

    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    norm = gradient_norm(energy, x, torch.ones(3, dtype=torch.int64), "sample")
    torch.testing.assert_close(norm, scale * D**0.5)


def test_the_norm_per_pixel_is_over_the_channels_only() -> None:
    weights = torch.arange(1.0, 13.0, dtype=torch.float64).view(SHAPE).requires_grad_()

    def energy(x: Tensor, t: Tensor) -> Tensor:
        return (weights * x).sum((1, 2, 3))

    norm = gradient_norm(energy, torch.randn(2, *SHAPE, dtype=torch.float64), torch.ones(2, dtype=torch.int64), "pixel")
    assert norm.shape == (2, 2, 2)
    torch.testing.assert_close(norm, weights.square().sum(0).sqrt().expand(2, 2, 2))


def test_time_reaches_the_energy() -> None:
    seen: list[Tensor] = []

    def energy(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return Linear(1.0)(x, t)

    batch = pairs(energy)
    batch.t = torch.tensor([1, 2, 3, 4, 5])
    WganLP(WganLP.Options(), Context(SHAPE, 5)).penalty(batch, torch.Generator())
    assert torch.equal(seen[0], batch.t)


def test_interpolates_lie_on_the_segment_with_a_share_of_their_own() -> None:
    x_pos, x_neg = torch.zeros(4, *SHAPE), torch.ones(4, *SHAPE)
    a = torch.tensor([0.0, 0.25, 0.5, 1.0])
    xhat = interpolate(x_pos, x_neg, a)
    assert torch.equal(xhat, a.view(4, 1, 1, 1).expand(4, *SHAPE))


def test_shares_are_uniform() -> None:
    shares: list[Tensor] = []

    def energy(x: Tensor, t: Tensor) -> Tensor:
        shares.append(x.detach().flatten(1)[:, 0])
        return Linear(1.0)(x, t)

    count = 20_000
    x = torch.zeros(count, *SHAPE, dtype=torch.float64)
    WganLP(WganLP.Options(), Context(SHAPE, 1)).penalty(
        Pairs(energy, x, x + 1, torch.ones(count, dtype=torch.int64)), torch.Generator().manual_seed(0)
    )
    histogram = torch.histc(shares[0], bins=10, min=0, max=1)
    assert (histogram - count / 10).abs().max() < 5 * (count * 0.09) ** 0.5


@pytest.mark.parametrize("kind", [WganLP, WganGP])
def test_a_flat_energy_gives_no_nan(kind: type[WganLP] | type[WganGP]) -> None:
    energy = Linear(0.0)
    value = penalty(kind, energy)
    value.backward()
    assert value.isfinite()
    assert energy.w.grad.isfinite().all()


def test_a_gradient_that_cannot_be_differentiated_is_an_error() -> None:
    class Detached(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.flatten(1).sum(1)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad.view(-1, 1, 1, 1).expand(-1, *SHAPE)

    with pytest.raises(RuntimeError, match=r"double backward|once_differentiable"):
        penalty(WganLP, lambda x, t: Detached.apply(x)).backward()


def test_sides() -> None:
    norms = torch.tensor([0.0, 1.0, 3.0])
    assert one_sided(norms).item() == pytest.approx(4 / 3)
    assert two_sided(norms).item() == pytest.approx(5 / 3)


def test_only_a_norm_per_sample_bounds_the_sweep() -> None:
    assert WganLP.gradient_bound(WganLP.Options()) == pytest.approx(1.05)
    assert WganLP.gradient_bound(WganLP.Options(norm="pixel")) is None
    assert WganGP.gradient_bound(WganGP.Options(weight=0.0)) is None


def test_metrics_are_detached() -> None:
    regularizer = WganLP(WganLP.Options(), Context(SHAPE, 1))
    term = regularizer.penalty(pairs(Linear(2.0)), torch.Generator().manual_seed(0))
    assert {name: value.requires_grad for name, value in term.metrics.items()} == {
        "penalty": False,
        "input_gradient_norm": False,
    }
    assert term.metrics["input_gradient_norm"].item() == pytest.approx(2.0)
