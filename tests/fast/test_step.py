"""One whole training step against the same step in float64, by its gradient; and what follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ebmkit import Pairs
from ebmkit.console import Silent
from ebmkit.engine.plain import PlainEngine
from ebmkit.fast import parts
from ebmkit.fast.parts import Parts
from ebmkit.model import load_model
from ebmkit.noise import generator
from ebmkit.run_folder import RunFolder
from ebmkit.trainer import Trainer
from run_helpers import differences, last_checkpoint, metrics_of, new_trainer, run_cli, tiny_recipe, write_shards

ON: dict[str, Any] = {"train__fast": "auto", "train__precision": "float32"}
OFF: dict[str, Any] = {"train__fast": "off"}
PARTS = "tf32", "channels_last", "winograd", "concatenate", "fused_optimizer"
CASES = {"off": OFF, "auto": ON} | {name: OFF | {"fast": {name: "on"}} for name in PARTS}
USUAL: dict[str, Any] = {"energy__channels": 16, "regularizers": [{"use": "wgan_gp", "weight": 20.0}]}
"""As many channels as Winograd wants, and a penalty that is never zero."""
TOLERANCE = 1e-5
"""Relative error of a float32 step's gradient by the parameters; up to 2e-6 is usual."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("step"), per_shard=40)


def trainer_of(folder: Path, shards: str, **values: Any) -> Trainer:
    return new_trainer(folder, tiny_recipe(shards, **{**USUAL, **values}))


def in_float64(trainer: Trainer) -> Trainer:
    """Its network is; images, chains and their noise are the same float32 numbers."""
    model = trainer.model.double()
    trainer.energy = lambda x, t: model(x.double(), t)  # type: ignore[assignment]
    return trainer


def step_gradient(trainer: Trainer) -> Tensor:
    """The gradient of the first step: data, chains, objective, penalty, backward."""
    trainer._micro_batch(0)
    return torch.cat([p.grad.double().flatten() for p in trainer.model.parameters() if p.grad is not None])


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("case", CASES)
def test_a_steps_gradient_is_that_of_float64(case: str, shards: str, tmp_path: Path) -> None:
    ours = trainer_of(tmp_path / "ours", shards, **CASES[case])
    wanted = "winograd" if case == "auto" else case
    assert case == "off" or getattr(ours.parts, wanted), "the part is there"
    theirs = in_float64(trainer_of(tmp_path / "theirs", shards, **OFF))
    assert error(step_gradient(ours), step_gradient(theirs)) < TOLERANCE


def test_bf16_is_near_and_leaves_the_penalty_in_float32(shards: str, tmp_path: Path) -> None:
    x_pos, x_neg = torch.randn(2, 4, 1, 8, 8, generator=generator("cpu", 1, "test"))
    t = torch.tensor([1, 2, 3, 4])

    def terms(trainer: Trainer) -> tuple[Tensor, Tensor]:
        """The gradient of the objective, and of the penalty: what it adds."""
        regularizers, found = trainer.regularizers, []
        for trainer.regularizers in ([], regularizers):
            pairs = Pairs(trainer.energy, x_pos, x_neg, t)
            loss, _ = trainer._loss(pairs, generator("cpu", 2, "test"))
            gradients = torch.autograd.grad(loss, list(trainer.model.parameters()), allow_unused=True)
            found.append([torch.zeros(()) if value is None else value.double() for value in gradients])
        objective, both = found
        return (
            torch.cat([value.flatten() for value in objective]),
            torch.cat([(a - b).flatten() for a, b in zip(both, objective, strict=True)]),
        )

    tiny = {"energy__channels": 8}
    ours = terms(trainer_of(tmp_path / "ours", shards, **OFF, **tiny, train__precision="bf16"))
    theirs = terms(in_float64(trainer_of(tmp_path / "theirs", shards, **OFF, **tiny)))
    assert 1e-4 < error(ours[0], theirs[0]) < 5e-2, "in bf16, and near"
    assert error(ours[1], theirs[1]) < 1e-4


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in trainer.model.parameters()])


def test_twenty_steps_stay_together(shards: str, tmp_path: Path) -> None:
    """Adam and the chains let rounding grow; the difference stays small beside the way that the weights went."""
    trainers = [trainer_of(tmp_path / str(i), shards, **case, train__steps=20) for i, case in enumerate((ON, OFF))]
    assert trainers[0].parts == Parts(channels_last=True, winograd=True, concatenate=True, fused_optimizer=True)
    assert trainers[1].parts == Parts()
    start = weights(trainers[1])
    assert torch.equal(start, weights(trainers[0])), "the same weights to begin with"
    for trainer in trainers:
        for _ in range(20):
            trainer.train_step()
    fast, plain = (weights(trainer) for trainer in trainers)
    assert error(fast - start, plain - start) < 1e-3
    assert not torch.equal(fast, plain), "they compute in different ways"


def resumed(folder: Path, recipe: Any) -> Trainer:
    return Trainer(recipe, RunFolder(folder), "cpu", Silent(lambda message: None))


def test_a_resumed_run_is_the_same_bit_for_bit(shards: str, tmp_path: Path) -> None:
    values = {**ON, "train__steps": 6, "train__checkpoint_every": 3}
    whole = trainer_of(tmp_path / "whole", shards, **values)
    assert whole.train().finished
    part = trainer_of(tmp_path / "part", shards, **values)
    assert not part.train(stop=lambda: part.step == 3).finished
    again = resumed(tmp_path / "part", part.recipe)
    assert again.step == 3
    assert again.parts == whole.parts
    assert again.train().finished
    assert not list(differences(last_checkpoint(tmp_path / "whole"), last_checkpoint(tmp_path / "part")))
    assert metrics_of(tmp_path / "whole") == metrics_of(tmp_path / "part")


def test_moments_lie_in_memory_as_their_parameters_do(shards: str, tmp_path: Path) -> None:
    """torch loads them as the file has them, and a fused update would pair moments with other weights' gradients."""
    trainer = trainer_of(tmp_path / "run", shards, **ON, train__steps=2)
    trainer.train()
    engine = resumed(tmp_path / "run", trainer.recipe).engine
    assert isinstance(engine, PlainEngine)
    assert engine.optimizer.param_groups[0]["fused"]
    assert any(not parameter.is_contiguous() for parameter in engine.parameters)
    for parameter in engine.parameters:
        for name in ("exp_avg", "exp_avg_sq"):
            assert engine.optimizer.state[parameter][name].stride() == parameter.stride()


@pytest.mark.parametrize(("first", "then"), [(ON, OFF), (OFF, ON)], ids=["auto, then off", "off, then auto"])
def test_a_run_may_go_on_with_other_parts(first: Any, then: Any, shards: str, tmp_path: Path) -> None:
    values = {"train__steps": 4, "train__checkpoint_every": 2}
    run = trainer_of(tmp_path / "run", shards, **values, **first)
    run.train(stop=lambda: run.step == 2)
    other = resumed(tmp_path / "run", tiny_recipe(shards, **{**USUAL, **values, **then}))
    assert other.parts != run.parts
    assert other.train().finished
    whole = trainer_of(tmp_path / "whole", shards, **values, **first)
    whole.train()
    assert error(weights(other), weights(whole)) < 1e-4


@pytest.fixture(scope="module")
def model(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = trainer_of(tmp_path_factory.mktemp("model") / "run", shards, **ON, train__steps=10)
    return trainer.train().model


def test_images_of_a_seed_are_the_same_but_for_rounding(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever processor this is: bf16 would differ by more.
    monkeypatch.setattr(parts, "native_bf16", lambda device: False)
    fast, plain = (load_model(model, "cpu", mode) for mode in ("auto", "off"))
    assert fast.parts.winograd
    assert plain.parts == Parts()
    ours, theirs = (loaded.sample(6, seed=3) for loaded in (fast, plain))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    assert not torch.equal(ours, theirs)


def test_without_the_option_a_model_is_as_fast_as_its_recipe_says(model: Path) -> None:
    assert load_model(model, "cpu").parts.winograd
    assert load_model(model, "cpu", "off").parts == Parts()


def test_sample_and_evaluate_take_it(model: Path, tmp_path: Path) -> None:
    for mode in ("off", "auto"):
        out = tmp_path / f"{mode}.safetensors"
        done = run_cli("sample", model, "--count", 3, "--out", out, "--device", "cpu", "--fast", mode)
        assert done.code == 0, done.err
        plain = load_model(model, "cpu", mode).sample(3)
        assert torch.equal(load_file(out)["images"], plain)
    done = run_cli("evaluate", model, "--count", 4, "--device", "cpu", "--fast", "off", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["samples"] == 4


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_an_unknown_value_is_refused(command: str, model: Path) -> None:
    done = run_cli(command, model, "--fast", "quick")
    assert done.code == 2
    assert "'quick' is not one of 'auto', 'off', 'max'" in " ".join(done.err.replace("│", " ").split())
