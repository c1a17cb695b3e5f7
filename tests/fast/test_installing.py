"""Which convolutions of a network Winograd takes, what it leaves alone, and machines without a compiler."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ebmkit.fast.parts import Parts
from ebmkit.fast.preparing import prepare
from ebmkit.fast.winograd import convolution, kernels
from ebmkit.fast.winograd.installing import install
from run_helpers import environment, run_process, tiny_table, write_recipe, write_shards


class Scaled(nn.Conv2d):
    """A convolution that does something of its own first."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class Standardized(nn.Conv2d):
    """One that changes its weights, as weight standardization does."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Named(nn.Conv2d):
    """A subclass that computes as its base does."""


def convolutions(**more: object) -> nn.Conv2d:
    return nn.Conv2d(16, 16, **({"kernel_size": 3, "padding": 1} | more))  # type: ignore[arg-type]


TAKEN = {
    "usual": convolutions,
    "no bias": lambda: convolutions(bias=False),
    "24 to 16": lambda: nn.Conv2d(24, 16, 3, padding=1),
    "subclass": lambda: Named(16, 16, 3, padding=1),
}
LEFT = {
    "strided": lambda: convolutions(stride=2),
    "dilated": lambda: convolutions(dilation=2, padding=2),
    "grouped": lambda: convolutions(groups=2),
    "5x5": lambda: convolutions(kernel_size=5, padding=2),
    "1x1": lambda: convolutions(kernel_size=1, padding=0),
    "3x1": lambda: convolutions(kernel_size=(3, 1), padding=(1, 0)),
    "unpadded": lambda: convolutions(padding=0),
    "padding by name": lambda: convolutions(padding="same"),
    "reflected": lambda: convolutions(padding_mode="reflect"),
    "circular": lambda: convolutions(padding_mode="circular"),
    "few channels": lambda: nn.Conv2d(8, 16, 3, padding=1),
    "20 channels": lambda: nn.Conv2d(16, 20, 3, padding=1),
    "own forward": lambda: Scaled(16, 16, 3, padding=1),
    "own weights": lambda: Standardized(16, 16, 3, padding=1),
    "transposed": lambda: nn.ConvTranspose2d(16, 16, 3, padding=1),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The kernel's calls, which go on to it."""
    found: list[object] = []
    real = kernels.convolve

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
        found.append(x.shape)
        return real(x, weight, bias, adjoint)

    monkeypatch.setattr(convolution.kernels, "convolve", counted)
    return found


@pytest.mark.parametrize("name", [*TAKEN, *LEFT])
def test_it_takes_what_suits_and_leaves_the_rest(name: str, calls: list[object]) -> None:
    torch.manual_seed(0)
    module = (TAKEN | LEFT)[name]()
    x = torch.randn(2, module.in_channels, 9, 9)
    before = module(x).detach()
    assert install(nn.Sequential(module)) == (name in TAKEN)
    after = module(x).detach()
    assert bool(calls) == (name in TAKEN)
    torch.testing.assert_close(after, before, rtol=0, atol=0 if name in LEFT else 1e-5)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(convolutions(), nn.SiLU(), convolutions())


def test_names_and_weights_stay(calls: list[object]) -> None:
    model, x = network(), torch.randn(2, 16, 6, 6)
    plain, keys, kinds = model(x).detach(), list(model.state_dict()), [type(module) for module in model]
    install(model)
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model] == kinds
    other = network()
    other.load_state_dict(pickle.loads(pickle.dumps(model.state_dict())))
    torch.testing.assert_close(other(x), plain, rtol=0, atol=0)
    assert not calls
    assert install(model) == 2, "twice is as once"
    torch.testing.assert_close(model(x), plain, rtol=0, atol=1e-5)
    assert len(calls) == 2


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_has_weights_of_its_own(way: str, calls: list[object]) -> None:
    model, x = network(), torch.randn(2, 16, 6, 6)
    install(model)
    before = model(x).detach()
    other = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        model[0].weight.zero_()
    calls.clear()
    assert torch.equal(other(x), before)
    assert len(calls) == 2
    assert not torch.equal(model(x), before)


@pytest.mark.parametrize("first", ["spectral norm", "install"])
def test_spectral_norm_is_what_is_computed(first: str, calls: list[object]) -> None:
    results = []
    for fast in (True, False):
        model = network()
        if fast and first == "install":
            install(model)
        for module in (model[0], model[2]):
            nn.utils.parametrizations.spectral_norm(module)
        if fast and first == "spectral norm":
            assert install(model) == 2
        x = torch.randn(2, 16, 6, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
        (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        weights = [p for p in model.parameters() if p.ndim == 4]
        results.append([slope.detach(), *torch.autograd.grad(slope.norm(), weights)])
    assert calls
    for ours, theirs in zip(*results, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What was compiled before is compiled anew."""
    kernels.library.cache_clear()
    yield
    kernels.library.cache_clear()


COMPILERS = {
    "/nonexistent": "there is no C compiler '/nonexistent'",
    "false": "the C compiler 'false' failed",
    "cc --no-such-option": "no-such-option",
    "cc 'half a quotation": "cannot be compiled: No closing quotation",
}


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("compiler", COMPILERS)
def test_without_a_compiler_one_warning_and_torchs_convolutions(
    compiler: str, monkeypatch: pytest.MonkeyPatch, calls: list[object]
) -> None:
    monkeypatch.setenv("CC", compiler)
    model, x, told = network(), torch.randn(1, 16, 5, 5), list[str]()
    before = model(x)
    parts = prepare(model, Parts(winograd=True, concatenate=True), "cpu", told.append)
    assert parts == Parts(concatenate=True)
    assert len(told) == 1
    assert told[0].startswith("warning: ")
    assert COMPILERS[compiler] in told[0]
    assert "fast.winograd = 'off'" in told[0]
    assert torch.equal(model(x), before)
    assert not calls


@pytest.mark.usefixtures("forgotten")
def test_a_compiler_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "slow-cc"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("CC", str(slow))
    monkeypatch.setattr(kernels, "TIMEOUT", 0.2)
    with pytest.raises(kernels.NoKernels, match=r"timed out"):
        kernels.library(2)


@pytest.mark.usefixtures("forgotten")
def test_without_room_for_files_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    told: list[str] = []
    assert not prepare(network(), Parts(winograd=True), "cpu", told.append).winograd
    assert len(told) == 1
    assert "cannot be compiled: [Errno 2]" in told[0]


@pytest.mark.usefixtures("forgotten")
def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "")
    assert install(network()) == 2


@pytest.mark.usefixtures("forgotten")
def test_nothing_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert install(network()) == 2
    assert os.listdir(tmp_path) == []


def test_a_network_without_such_convolutions_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nonexistent")
    told: list[str] = []
    assert not prepare(nn.Linear(3, 1), Parts(winograd=True), "cpu", told.append).winograd
    assert told == []


def test_training_goes_on_without_a_compiler(tmp_path: Path) -> None:
    table = tiny_table(write_shards(tmp_path / "shards"), energy__channels=16, train__steps=2)
    write_recipe(tmp_path / "tiny.toml", table)
    environ = environment(CC="/nonexistent")
    done = run_process("train", "tiny.toml", "--run-dir", "run", cwd=tmp_path, env=environ)
    assert done.code == 0, done.err
    shown = " ".join((done.out + done.err).split())
    assert shown.count("there is no C compiler '/nonexistent'") >= 1
    assert (tmp_path / "run" / "model.safetensors").is_file()
