"""Winograd's convolution against torch's in float64: values and derivatives, threads, NaN, and where it steps aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import conv2d

from ebmkit.fast.winograd import convolution
from ebmkit.fast.winograd.convolution import convolve

Convolution = Callable[[Tensor, Tensor, Tensor | None], Tensor]

TOLERANCE = 1e-5
"""Norm of the difference, relative to that of what is expected; 1e-6 to 3e-6 is usual."""
SHAPES = [
    # batch, in, out, height, width
    (1, 16, 16, 1, 1),
    (3, 16, 24, 4, 4),
    (2, 24, 16, 7, 10),
    (1, 24, 24, 33, 5),
    (5, 32, 16, 2, 3),
    (2, 64, 64, 8, 8),
    (1, 64, 128, 9, 6),
    (2, 128, 64, 5, 5),
    (7, 16, 128, 3, 1),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return conv2d(x, weight, bias, padding=1)


def made(shape: tuple[int, ...], last: bool = False, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, weights, biases, and a cotangent, in float32."""
    batch, inner, outer, height, width = shape
    random = torch.Generator().manual_seed(seed)
    x, weight, bias, cotangent = (
        torch.randn(*size, generator=random)
        for size in ((batch, inner, height, width), (outer, inner, 3, 3), (outer,), (batch, outer, height, width))
    )
    order = torch.channels_last if last else torch.contiguous_format
    return x, (weight / (9 * inner) ** 0.5).contiguous(memory_format=order), bias, cotangent


def derivatives(convolution: Convolution, *given: Tensor, bias: bool = True) -> dict[str, Tensor]:
    """The value, its derivatives, and theirs: of the norms of the first ones, as penalties have it."""
    x, weight, shift, cotangent = leaves = [value.detach().clone().requires_grad_() for value in given]
    y = convolution(x, weight, shift if bias else None)
    by = [x, weight, shift] if bias else [x, weight]
    first = torch.autograd.grad((y.square() * cotangent).sum(), by, create_graph=True)
    norms = sum((value.norm() for value in first), torch.zeros((), dtype=x.dtype))
    second = torch.autograd.grad(norms, [*by, cotangent], create_graph=True)
    third = torch.autograd.grad(sum(value.square().sum() for value in second), [x, weight, leaves[3]])
    found = {"y": y.detach()}
    for order, values in (("first", first), ("second", second), ("third", third)):
        found |= {f"{order} {place}": value.detach() for place, value in enumerate(values)}
    return found


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_derivatives_are_those_of_float64(shape: tuple[int, ...], last: bool, bias: bool) -> None:
    given = made(shape, last)
    found = derivatives(convolve, *given, bias=bias)
    expected = derivatives(plain, *(value.double() for value in given), bias=bias)
    assert found["y"].is_contiguous(memory_format=torch.channels_last)
    errors = {name: error(found[name], value) for name, value in expected.items()}
    assert {name: value for name, value in errors.items() if not value < TOLERANCE} == {}


def test_it_is_this_convolution_that_is_tested() -> None:
    y = convolve(*(value.requires_grad_() for value in made((1, 16, 16, 4, 4))[:3]))
    assert type(y.grad_fn).__name__ == "_ConvolutionBackward"


@pytest.mark.parametrize("view", ["every second image", "a part", "expanded", "turned"])
def test_images_and_cotangents_may_lie_in_memory_anyhow(view: str) -> None:
    x, weight, bias, _ = made((4, 16, 16, 8, 8))
    views = {"every second image": x[::2], "a part": x[..., 1:6, 2:], "expanded": x[:1].expand(3, -1, -1, -1)}
    images, bias = views.get(view, x.transpose(2, 3)).detach().requires_grad_(), bias[:1].expand(16)
    (found,) = torch.autograd.grad(convolve(images, weight, bias).sum(), images)
    wide = images.detach().double().requires_grad_()
    y = plain(wide, weight.double(), bias.double())
    (expected,) = torch.autograd.grad(y.sum(), wide)
    assert error(convolve(images, weight, bias).detach(), y.detach()) < TOLERANCE
    assert error(found, expected) < TOLERANCE


def test_it_is_the_same_bit_for_bit_with_every_call() -> None:
    torch.set_num_threads(2)
    given = made((6, 32, 24, 9, 7))
    runs = [derivatives(convolve, *given) for _ in range(5)]
    assert all(torch.equal(a[name], b[name]) for a, b in pairwise(runs) for name in a)


def test_threads_change_rounding_only() -> None:
    given = made((6, 32, 24, 9, 7))
    alone = derivatives(convolve, *given)
    torch.set_num_threads(2)
    together = derivatives(convolve, *given)
    # Pixels are each one thread's; weights are sums over the threads.
    assert torch.equal(alone["y"], together["y"])
    assert torch.equal(alone["first 0"], together["first 0"])
    assert all(error(together[name], value.double()) < 5e-6 for name, value in alone.items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["x", "weight", "bias", "cotangent"])
def test_what_is_not_finite_passes_on(bad: float, where: str) -> None:
    """At every place where torch's own result is not finite; within a tile at more of them."""
    given = dict(zip(["x", "weight", "bias", "cotangent"], made((2, 16, 16, 9, 9)), strict=True))
    given[where].view(-1)[5] = bad
    results = []
    for f in (convolve, plain):
        x, weight, bias = (given[name].requires_grad_() for name in ("x", "weight", "bias"))
        y = f(x, weight, bias)
        results.append((y, *torch.autograd.grad(y, (x, weight, bias), given["cotangent"].detach())))
    for ours, theirs in zip(*results, strict=True):
        assert bool((~ours.isfinite() | theirs.isfinite()).all())
    assert any(not theirs.isfinite().all() for theirs in results[1])


@pytest.fixture
def unused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels must not be called."""

    def refuse(*values: object) -> Tensor:
        raise AssertionError("a kernel was called")

    monkeypatch.setattr(convolution.kernels, "convolve", refuse)
    monkeypatch.setattr(convolution.kernels, "weight_gradient", refuse)


@pytest.mark.usefixtures("unused")
class TestSteppingAside:
    """Where the kernels do not serve, the values are torch's own, bit for bit."""

    x, weight, bias, tangent = made((2, 16, 16, 5, 6))

    def test_autocast(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, expected = (f(self.x, self.weight, self.bias) for f in (convolve, plain))
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected)

    def test_float64(self) -> None:
        given = [value.double() for value in (self.x, self.weight, self.bias)]
        assert torch.equal(convolve(*given), plain(*given))

    def test_no_images(self) -> None:
        assert convolve(self.x[:0], self.weight, self.bias).shape == (0, 16, 5, 6)

    def test_an_image_without_a_batch(self) -> None:
        assert torch.equal(convolve(self.x[0], self.weight, self.bias), plain(self.x[0], self.weight, self.bias))

    @pytest.mark.parametrize("name", ["grad", "vmap", "jvp", "grad of grad"])
    def test_transforms(self, name: str) -> None:
        def run(f: Convolution) -> Tensor:
            def summed(x: Tensor) -> Tensor:
                return f(x, self.weight, self.bias).square().sum()

            slope = torch.func.grad(summed)
            if name == "grad":
                return slope(self.x)
            if name == "vmap":
                return torch.func.vmap(lambda x: f(x[None], self.weight, self.bias)[0])(self.x)
            if name == "jvp":
                return torch.func.jvp(lambda x: f(x, self.weight, self.bias), (self.x,), (self.tangent[:, :16],))[1]
            return torch.func.grad(lambda x: slope(x).square().sum())(self.x)

        assert torch.equal(run(convolve), run(plain))

    def test_forward_mode(self) -> None:
        results = []
        for f in (convolve, plain):
            with forward_ad.dual_level():
                y = f(forward_ad.make_dual(self.x, self.tangent[:, :16]), self.weight, self.bias)
                results.append(forward_ad.unpack_dual(y).tangent)
        assert results[0] is not None
        assert torch.equal(*results)

    @pytest.mark.parametrize("fault", ["images of other channels", "a bias of another type", "a short bias"])
    def test_a_mistake_is_told_as_by_torch(self, fault: str) -> None:
        x = self.x[:, :8] if fault == "images of other channels" else self.x
        bias = {"a bias of another type": self.bias.double(), "a short bias": self.bias[:8]}.get(fault, self.bias)
        with pytest.raises(RuntimeError) as expected:
            plain(x, self.weight, bias)
        with pytest.raises(RuntimeError) as found:
            convolve(x, self.weight, bias)
        assert str(found.value) == str(expected.value)
