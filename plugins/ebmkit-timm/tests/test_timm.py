"""The `timm` energy."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from ebmkit_timm.backbone import HARD_GATES, KINKED
from ebmkit_timm.energy import RESERVED, Timm
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ebmkit import PLUGIN_API, BaseOptions, Context
from ebmkit.errors import BadInput
from ebmkit.testing import EnergyContract

Shape = tuple[int, int, int]

# Small ones of each kind: batch norm and ReLU; hard activations and gates; layer scale; attention; both.
BACKBONES: list[tuple[str, Shape, dict[str, Any]]] = [
    ("resnet18", (3, 32, 32), {}),
    ("mobilenetv3_small_050", (1, 32, 32), {}),
    ("convnext_atto", (4, 32, 64), {}),
    ("vit_tiny_patch16_224", (3, 24, 16), {"patch_size": 8, "depth": 2}),
    ("levit_128s", (3, 32, 32), {}),
]
ALL = pytest.mark.parametrize(("model", "shape", "arguments"), BACKBONES, ids=[model for model, _, _ in BACKBONES])


def build(model: str = "resnet18", shape: Shape = (3, 32, 32), **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return Timm(Timm.Options(model=model, **options), Context(shape, 20)).build()


def batch(shape: Shape = (3, 32, 32), n: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *shape, generator=generator), torch.arange(1, n + 1)


@ALL
def test_energies_and_gradients_of_gradients(model: str, shape: Shape, arguments: dict[str, Any]) -> None:
    network = build(model, shape, arguments=arguments)
    x, t = batch(shape)
    x.requires_grad_()
    energy = network(x, t)
    assert energy.shape == (3,)
    assert energy.dtype == torch.float32
    (gradient,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
    norms = gradient.flatten(1).norm(dim=1)
    assert norms.min() > 0
    assert norms.max() < 1
    (norms - 1).square().mean().backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert missing == ["out.bias"]  # a constant: it does not move the input gradient


@ALL
def test_time_matters(model: str, shape: Shape, arguments: dict[str, Any]) -> None:
    first, second = build(model, shape, arguments=arguments)(
        batch(shape, 1)[0].expand(2, -1, -1, -1), torch.tensor([1, 2])
    )
    assert abs(first - second) > 1e-5


@ALL
def test_an_energy_depends_on_its_own_image_alone(model: str, shape: Shape, arguments: dict[str, Any]) -> None:
    network = build(model, shape, arguments=arguments).train()
    assert not any(isinstance(module, _BatchNorm) for module in network.modules())
    x, t = batch(shape)
    energy = network(x, t)
    torch.testing.assert_close(network(torch.cat([x[:1], 5 * x[1:]]), t)[:1], energy[:1])
    torch.testing.assert_close(network(x, t), energy)  # no dropout
    torch.testing.assert_close(network.eval()(x, t), energy)


@ALL
def test_no_activation_with_a_kink_is_left(model: str, shape: Shape, arguments: dict[str, Any]) -> None:
    names = {type(module).__name__ for module in build(model, shape, arguments=arguments).modules()}
    assert not names & (KINKED | HARD_GATES)


def test_dropout_and_fused_attention_are_off() -> None:
    network = build("vit_tiny_patch16_224", (3, 16, 16), arguments={"depth": 1, "proj_drop_rate": 0.5})
    assert not any(isinstance(module, nn.Dropout) for module in network.modules())
    assert [module.fused_attn for module in network.modules() if hasattr(module, "fused_attn")] == [False]


@pytest.mark.parametrize(
    "options",
    [
        *({"activation": name} for name in ("silu", "softplus", "gelu", "mish", "original")),
        *({"norm": name} for name in ("layer", "group", "none")),
        {"time_planes": 0},
        {"time_channels": 8},
    ],
    ids=str,
)
def test_every_option_runs(options: dict[str, Any]) -> None:
    network = build(**options)
    assert network(*batch()).isfinite().all()
    has_relu = any(isinstance(module, nn.ReLU) for module in network.modules())
    assert has_relu == (options.get("activation") == "original")


def test_double_precision_copies_and_channels_last() -> None:
    network = build("convnext_atto")
    x, t = batch()
    energy = network(x, t)
    torch.testing.assert_close(copy.deepcopy(network)(x, t), energy)
    exact = copy.deepcopy(network).double()(x.double(), t)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), energy, atol=1e-4, rtol=1e-3)
    last = torch.channels_last
    torch.testing.assert_close(network.to(memory_format=last)(x.to(memory_format=last), t), energy)


@pytest.mark.parametrize("model", ["resnt18", "hf-hub:timm/resnet18", "resnet18.a1_in1k"])
def test_an_unknown_model_is_named_with_the_nearest(model: str) -> None:
    with pytest.raises(BadInput, match=r"unknown timm model .*'resnet18'"):
        build(model)


def test_an_unsuitable_image_size_is_named() -> None:
    with pytest.raises(BadInput, match="looks at 16 x 16 of 20 x 20 pixels"):
        build("vit_tiny_patch16_224", (3, 20, 20), arguments={"depth": 1})


def test_an_image_that_is_too_small_is_named() -> None:
    with pytest.raises(BadInput, match="8 x 8 pixels"):
        build("vit_tiny_patch16_224", (3, 8, 8), arguments={"depth": 1})


def test_parameters_can_be_counted_without_memory() -> None:
    with torch.device("meta"):
        network = build("resnet18")
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(11.4e6, rel=0.01)


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(BadInput, match="patch_sise"):
        build("resnet18", arguments={"patch_sise": 4})


@pytest.mark.parametrize(
    "nonsense",
    [
        {},
        {"model": ""},
        {"model": 18},
        {"model": "resnet18", "activation": "relu"},
        {"model": "resnet18", "norm": "batch"},
        {"model": "resnet18", "time_planes": -1},
        {"model": "resnet18", "pretrained": True},
        *({"model": "resnet18", "arguments": {name: True}} for name in RESERVED),
    ],
    ids=str,
)
def test_options_refuse_nonsense(nonsense: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Timm.Options(**nonsense)


def test_options_are_described() -> None:
    assert issubclass(Timm.Options, BaseOptions)
    assert all(field.description for field in Timm.Options.model_fields.values())


def test_the_plugin_offers_its_energy() -> None:
    import ebmkit_timm

    assert ebmkit_timm.PLUGIN_API == PLUGIN_API
    assert ebmkit_timm.ebmkit_energies() == [Timm]
    assert (Timm.kind, Timm.name) == ("energy", "timm")


def test_options_need_no_torch() -> None:
    code = "import sys, ebmkit_timm, ebmkit_timm.energy; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


class TestTimmContract(EnergyContract):
    component = Timm
    options = {"model": "resnet10t", "time_channels": 16}
    image_shape = (3, 32, 32)


class TestTimmTransformerContract(EnergyContract):
    component = Timm
    options = {
        "model": "vit_tiny_patch16_224",
        "arguments": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3},
        "time_channels": 16,
    }
