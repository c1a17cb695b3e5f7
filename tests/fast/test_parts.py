"""The choice of parts, and the warning about emulated bf16."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ebmkit.fast import parts as choosing
from ebmkit.fast import preparing
from ebmkit.fast.parts import COMPILED_FLOPS, Parts, choose, native_bf16
from ebmkit.options import FastOptions

AUTO = FastOptions()
CPU = Parts(channels_last=True, winograd=True, concatenate=True, fused_optimizer=True)
CUDA = Parts(precision="bf16", tf32=True, channels_last=True, concatenate=True, fused_optimizer=True)
COMPILED = Parts("bf16", tf32=True, channels_last=True, concatenate=True, fused_optimizer=True, compile=True)
GRAPHS = Parts(**{**vars(COMPILED), "cuda_graphs": True})
SHORT, LONG = COMPILED_FLOPS * 0.99, COMPILED_FLOPS
TABLE: list[tuple[str, str, float | None, Parts]] = [
    ("off", "cpu", LONG, Parts()),
    ("off", "cuda", LONG, Parts()),
    ("off", "mps", LONG, Parts()),
    ("auto", "cpu", None, CPU),
    ("auto", "cpu", LONG, CPU),
    ("auto", "cuda", None, CUDA),
    ("auto", "cuda:1", SHORT, CUDA),
    ("auto", "cuda:1", LONG, COMPILED),
    ("auto", "mps", LONG, Parts(concatenate=True)),
    ("max", "cpu", LONG, CPU),
    ("max", "cuda", 1.0, GRAPHS),
    ("max", "cuda", None, GRAPHS),
    ("max", "mps", LONG, Parts(concatenate=True)),
]


@pytest.fixture(autouse=True)
def bf16_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs that have bf16, and a CPU that has none, whatever this machine is."""
    monkeypatch.setattr(choosing, "native_bf16", lambda device: device.startswith("cuda"))


@pytest.mark.parametrize(("mode", "device", "flops", "expected"), TABLE)
def test_a_device_and_a_run_get_what_they_deserve(mode: str, device: str, flops: float | None, expected: Parts) -> None:
    assert choose(mode, "auto", AUTO, device, flops) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("mode", ["off", "auto", "max"])
@pytest.mark.parametrize("value", ["on", "off"])
@pytest.mark.parametrize("name", [name for name in FastOptions.model_fields if name != "cuda_graphs"])
def test_what_is_set_by_hand_is_as_it_is_set(name: str, value: str, mode: str, device: str) -> None:
    by_hand = FastOptions.model_validate({name: value})
    found, chosen = choose(mode, "auto", by_hand, device, LONG), choose(mode, "auto", AUTO, device, LONG)
    assert getattr(found, name) == (value == "on")
    # The others as before, but for those that go with compilation.
    follow = {"winograd", "cuda_graphs"} if name == "compile" else set()
    others = vars(found).keys() - {name} - follow
    assert {key: getattr(found, key) for key in others} == {key: getattr(chosen, key) for key in others}


@pytest.mark.parametrize("mode", ["off", "auto", "max"])
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_so_is_precision(precision: str, device: str, mode: str) -> None:
    assert choose(mode, precision, AUTO, device, LONG).precision == precision


def test_a_compiler_and_winograd_exclude_each_other_unless_both_are_set() -> None:
    compiled = FastOptions(compile="on")
    assert choose("auto", "auto", compiled, "cpu") == Parts(**{**vars(CPU), "winograd": False, "compile": True})
    both = FastOptions(compile="on", winograd="on")
    assert choose("auto", "auto", both, "cpu") == Parts(**{**vars(CPU), "compile": True})


@pytest.mark.parametrize(("by_hand", "graphs"), [("auto", False), ("on", True)])
def test_graphs_are_of_compiled_code_alone(by_hand: str, graphs: bool) -> None:
    options = FastOptions.model_validate({"cuda_graphs": by_hand})
    assert choose("auto", "auto", options, "cuda", LONG).cuda_graphs == graphs
    assert not choose("auto", "auto", options, "cuda", SHORT).cuda_graphs
    assert not choose("max", "auto", FastOptions(cuda_graphs="off"), "cuda", LONG).cuda_graphs


def test_a_device_without_bf16_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "native_bf16", lambda device: False)
    assert choose("max", "auto", AUTO, "cuda", LONG).precision == "float32"


def test_a_cpu_with_bf16_stays_in_float32_unless_it_is_set_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "native_bf16", lambda device: True)
    assert choose("max", "auto", AUTO, "cpu", LONG) == CPU
    assert choose("auto", "bf16", AUTO, "cpu", LONG).precision == "bf16"


def test_parts_as_text() -> None:
    assert str(Parts()) == "float32"
    assert str(CPU) == "float32, channels_last, winograd, concatenate, fused_optimizer"
    assert str(GRAPHS) == "bf16, tf32, channels_last, concatenate, compile, cuda_graphs, fused_optimizer"


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(True, False, True), (False, True, True), (False, False, False), (None, None, False)],
)
def test_bf16_of_a_cpu(avx512: bool | None, amx: bool | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_is_avx512_bf16_supported", avx512), ("_is_amx_tile_supported", amx)):
        answer: Callable[[], bool] | None = None if value is None else lambda value=value: value
        monkeypatch.setattr(torch.cpu, name, answer, raising=False)
    assert native_bf16("cpu") == expected
    assert not native_bf16("mps")


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_emulated_bf16_is_told(precision: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "native_bf16", lambda device: native)
    told: list[str] = []
    parts = Parts(precision=precision)
    assert preparing.prepare(nn.Linear(2, 1), parts, "cpu", told.append) == parts
    assert len(told) == (precision == "bf16" and not native)
    assert all("cpu has no bf16 of its own" in message and "train.precision = 'float32'" in message for message in told)
