"""Compiling: what was compiled at the start is what runs, without a second compilation that nobody announced."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from ebmkit.fast import energy
from ebmkit.fast.parts import Parts
from ebmkit.pipeline import build_energy
from ebmkit.precision import tf32
from run_helpers import new_trainer, tiny_recipe, write_shards


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Pictures of 8x8."""
    return write_shards(tmp_path / "shards")


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each graph that was compiled, how often it ran; it runs as it is, which takes no time to make."""
    found: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        number = len(found)
        found.append(0)

        def run(*arguments: Any) -> Any:
            found[number] += 1
            return graph(*arguments)

        return run

    def compiled(function: Callable[..., Any], mode: str | None = None) -> Callable[..., Any]:
        return torch.compile(function, dynamic=False, backend=backend)

    torch._dynamo.reset()
    monkeypatch.setattr(energy, "_compiled", compiled)
    return found


def as_on_a_gpu(device: str, allowed: bool) -> AbstractContextManager[None]:
    """TF32's settings, which change nothing on a CPU but are there."""
    return tf32("cuda", allowed)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training_compiles_at_its_start_only(
    precision: str, shards: str, tmp_path: Path, compilations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebmkit.learner.tf32", as_on_a_gpu)
    values = {"fast": {"compile": "on", "tf32": "on"}, "train__precision": precision}
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards, **values))
    at_start = list(compilations)
    assert trainer.parts.compile
    trainer.train_step()
    trainer.train()
    assert len(compilations) == len(at_start)
    assert all(now > before for now, before in zip(compilations, at_start, strict=True))


def test_every_batch_size_is_compiled_for(shards: str, compilations: list[int]) -> None:
    recipe = tiny_recipe(shards)
    network = build_energy(recipe, recipe.context(), []).requires_grad_(False)
    function = energy.FastEnergy(network, Parts())
    for count in range(1, 11):
        assert function.compile((count, 1, 8, 8), "cpu", lambda message: None, trained=False)
        x, t = torch.randn(count, 1, 8, 8), torch.ones(count, dtype=torch.int64)
        assert torch.allclose(function.gradient(x, t), energy.energy_gradient(network, x, t), atol=1e-6)
    # Twice when it was tried, once here.
    assert compilations == [3] * 10


def test_tf32_is_given_back() -> None:
    def settings() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = settings()
    with tf32("cuda", True):
        assert settings() == ("high", True)
        with tf32("cuda", False):
            assert settings() == ("highest", False)
        assert settings() == ("high", True)
    with tf32("cpu", True):
        assert settings() == before
    assert settings() == before
