"""The `unet` energy."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from ebmkit_unet.energy import UNet
from pydantic import ValidationError
from torch import Tensor, nn

from ebmkit import PLUGIN_API, BaseOptions, Context
from ebmkit.testing import EnergyContract

SMALL: dict[str, Any] = {"channels": 8, "channel_multipliers": (1, 2), "head_width": 16}


def build(shape: tuple[int, int, int] = (3, 8, 8), time_steps: int = 20, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return UNet(UNet.Options(**options), Context(shape, time_steps)).build()


def batch(shape: tuple[int, int, int] = (3, 8, 8), n: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *shape, generator=generator), torch.arange(1, n + 1)


def count(shape: tuple[int, int, int], **options: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(shape, **options).parameters())


def test_parameter_counts_are_the_papers() -> None:
    assert count((3, 32, 32)) == pytest.approx(8.56e6, abs=5e3)
    assert count((3, 64, 64), channel_multipliers=(1, 2, 3, 4)) == pytest.approx(44.81e6, abs=5e3)
    assert count((3, 32, 32)) == pytest.approx(9e6, rel=0.1)
    assert count((3, 64, 64), channel_multipliers=(1, 2, 3, 4)) == pytest.approx(45e6, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (4, 8, 8), (3, 12, 8), (3, 2, 6)])
def test_one_float_per_image(shape: tuple[int, int, int]) -> None:
    energy = build(shape, **SMALL)(*batch(shape))
    assert energy.shape == (3,)
    assert energy.dtype == torch.float32
    assert energy.isfinite().all()


OPTIONS: list[dict[str, Any]] = [
    *({"downsampling": name} for name in ("subpixel", "subpixel3", "strided")),
    *({"conditioning": name} for name in ("scale_shift", "add", "none")),
    *({"norm": name} for name in ("layer", "group", "none")),
    *({"head": name} for name in ("flatten", "sum", "mean")),
    *(
        {"activation": name}
        for name in ("silu", "sigmoid", "softplus", "gelu", "mish", "elu", "tanh", "leaky_relu", "relu")
    ),
    {"head_width": 0},
    {"channel_multipliers": (2,)},
    {"channel_multipliers": (1, 1, 1, 1)},
    {"channels": 5, "norm": "group"},
    {"middle_blocks": 0, "blocks_per_resolution": 1},
    {"time_multiplier": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_gives_gradients_of_gradients(options: dict[str, Any]) -> None:
    model = build(**{**SMALL, **options})
    x, t = batch()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model(x, t).sum(), x, create_graph=True)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    (gradient.flatten(1).norm(dim=1) - 1).square().mean().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing in ([], ["head.out.bias"])  # a constant: it does not move the input gradient
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("head", ["flatten", "sum", "mean"])
def test_input_gradients_start_small_but_not_zero(head: str) -> None:
    model = build((3, 16, 16), channels=16, head=head)
    x, t = batch((3, 16, 16))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model(x, t).sum(), x)
    norms = gradient.flatten(1).norm(dim=1)
    assert norms.min() > 0.01
    assert norms.max() < 0.7


@pytest.mark.parametrize("conditioning", ["scale_shift", "add"])
@pytest.mark.parametrize("time_steps", [2, 20, 1000])
def test_time_matters(conditioning: str, time_steps: int) -> None:
    model = build(time_steps=time_steps, conditioning=conditioning, **SMALL)
    x = batch(n=1)[0].expand(2, -1, -1, -1)
    for t in (torch.tensor([1, 2]), torch.tensor([time_steps - 1, time_steps])):
        first, second = model(x, t)
        assert abs(first - second) > 1e-5


def test_a_network_may_be_blind_to_time() -> None:
    model = build(conditioning="none", **SMALL)
    x = batch(n=1)[0].expand(2, -1, -1, -1)
    first, second = model(x, torch.tensor([1, 3]))
    assert first == second
    assert not any("time" in name for name, _ in model.named_parameters())


def test_one_time_step_is_enough() -> None:
    x, _ = batch()
    assert build(time_steps=1, **SMALL)(x, torch.ones(3, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize("norm", ["layer", "group", "none"])
def test_an_energy_does_not_depend_on_the_other_images(norm: str) -> None:
    model = build(norm=norm, **SMALL).train()
    x, t = batch()
    other = torch.cat([x[:1], 5 * x[1:]])
    torch.testing.assert_close(model(x, t)[:1], model(other, t)[:1])
    torch.testing.assert_close(model(x, t)[:1], model(x[:1], t[:1]))
    torch.testing.assert_close(model(x, t), model.eval()(x, t))


def test_double_precision_and_copies() -> None:
    model = build(**SMALL)
    x, t = batch()
    torch.testing.assert_close(copy.deepcopy(model)(x, t), model(x, t))
    exact = copy.deepcopy(model).double()(x.double(), t)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), model(x, t), atol=1e-4, rtol=1e-3)


def test_channels_last_changes_nothing() -> None:
    model = build(**SMALL)
    x, t = batch()
    before = model(x, t)
    after = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t)
    torch.testing.assert_close(after, before)


def test_energies_keep_the_precision_of_the_weights_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert build(**SMALL)(*batch()).dtype == torch.float32


def test_image_sizes_are_checked() -> None:
    options = UNet.Options()
    assert UNet.problems(options, Context((3, 32, 64), 20)) == []
    height, width = UNet.problems(options, Context((3, 28, 5), 20))
    assert "height 28" in height
    assert "divisible by 8" in height
    assert "24 or 32" in height
    assert "width 5" in width
    assert "use 8" in width
    assert UNet.problems(UNet.Options(channel_multipliers=(1,)), Context((3, 7, 5), 20)) == []


@pytest.mark.parametrize(
    "nonsense",
    [
        {"channels": 0},
        {"channels": "128"},
        {"channel_multipliers": ()},
        {"channel_multipliers": (1, 0)},
        {"channel_multipliers": (1.5,)},
        {"blocks_per_resolution": 0},
        {"middle_blocks": -1},
        {"downsampling": "maxpool"},
        {"activation": "swish"},
        {"head": "max"},
        {"chanels": 64},
    ],
    ids=str,
)
def test_options_refuse_nonsense(nonsense: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        UNet.Options(**nonsense)


def test_options_are_described() -> None:
    assert issubclass(UNet.Options, BaseOptions)
    assert all(field.description for field in UNet.Options.model_fields.values())


def test_the_plugin_offers_its_energy() -> None:
    import ebmkit_unet

    assert ebmkit_unet.PLUGIN_API == PLUGIN_API
    assert ebmkit_unet.ebmkit_energies() == [UNet]
    assert (UNet.kind, UNet.name) == ("energy", "unet")


def test_options_need_no_torch() -> None:
    code = "import sys, ebmkit_unet, ebmkit_unet.energy; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


class TestUNetContract(EnergyContract):
    """The same network as the recipes', with fewer channels."""

    component = UNet
    options = {"channels": 8}


class TestUNetWithPoolingContract(EnergyContract):
    component = UNet
    options = {"channels": 8, "head": "sum", "conditioning": "add", "downsampling": "strided"}
