"""Precision: TF32 as a setting that is given back, and energies in float32 under autocast."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from ebmkit.precision import autocast, keep_energies_in_float32, tf32


def settings() -> tuple[str, bool]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def own() -> Iterator[None]:
    before = settings()
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("before", [("highest", True), ("high", False), ("medium", True)])
@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_set_within_and_given_back(allowed: bool, before: tuple[str, bool]) -> None:
    """The settings exist without a GPU, too."""
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with tf32("cuda:0", allowed):
            assert settings() == (("high", True) if allowed else ("highest", False))
    assert settings() == before
    with pytest.raises(KeyError), tf32("cuda", allowed):
        raise KeyError
    assert settings() == before


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_tf32_is_no_matter_elsewhere(device: str) -> None:
    before = settings()
    with tf32(device, not before[1]):
        assert settings() == before


@pytest.mark.parametrize(("precision", "inner"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_energies_are_float32_whatever_the_network_computes_in(precision: str, inner: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    seen: list[torch.dtype] = []
    model[0].register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    keep_energies_in_float32(model, precision)
    with autocast("cpu", precision):
        assert model(torch.ones(3, 4)).dtype == torch.float32
    assert seen == [inner]
