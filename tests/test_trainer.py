"""Training: Algorithm 1 as corrected, step by step, with real parts on tiny images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ebmkit import BaseOptions, Pairs, Regularizer, Term, TrainingFailed
from ebmkit.data import all_images
from ebmkit.engine.plain import PlainEngine
from ebmkit.model import load_model
from ebmkit.noise import GeneratorNoise, generator
from ebmkit.options import OptimizerOptions
from ebmkit.pipeline import build_energy, frozen
from ebmkit.run_folder import RunFolder
from ebmkit.sampling import from_uint8, start_noise, sweep
from run_helpers import contents, metrics_of, new_trainer, run_cli, tiny_recipe, tiny_table, with_part, write_recipe
from run_helpers import write_shards as make_tars


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_tars(tmp_path_factory.mktemp("shards"))


class Recorder(Regularizer):
    """Adds no penalty, and keeps what each step compared."""

    name = "recorder"
    seen: ClassVar[list[Pairs]] = []

    class Options(BaseOptions):
        """No options."""

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        self.seen.append(pairs)
        return None


@pytest.fixture
def recorded() -> list[Pairs]:
    Recorder.seen.clear()
    return Recorder.seen


def test_training_lowers_the_energy_of_data_and_chains_move_towards_it(tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(
        shards,
        data__horizontal_flip=False,
        sampler={"use": "langevin", "steps": 5, "step_size": "auto", "noise": 0.02},
        optimizer={"learning_rate": 3e-3},
        train__steps=60,
        train__batch_size=24,
    )
    trainer = new_trainer(tmp_path / "run", recipe)
    data = from_uint8(all_images(recipe.data))
    noise = torch.randn(len(data), 1, 8, 8, generator=generator("cpu", 0, "test"))

    def gap() -> float:
        with torch.no_grad():
            t = torch.arange(len(data)) % recipe.time_steps + 1
            return float(trainer.model(data, t).mean() - trainer.model(noise, t).mean())

    def distance() -> float:
        source = GeneratorNoise(generator("cpu", 1, "test"))
        with frozen(trainer.model):
            x = sweep(trainer.model, trainer.sampler, start_noise(source, 32, (1, 8, 8), "cpu"), 4, source)
        return float((x.mean(0) - data.mean(0)).square().mean().sqrt())

    gap_before, distance_before = gap(), distance()
    for _ in range(recipe.train.steps):
        trainer.train_step()
    assert gap() < gap_before
    assert gap() < -0.5, "the energy of data is below that of noise"
    assert distance() < 0.5 * distance_before


def test_a_single_step_lowers_data_relative_to_its_negatives(
    tmp_path: Path, shards: str, recorded: list[Pairs]
) -> None:
    """Without a penalty, on the very images and chains of that step, whatever they are."""
    recipe = with_part(tiny_recipe(shards, regularizers=[], optimizer={"learning_rate": 1e-4}), Recorder)
    trainer = new_trainer(tmp_path / "run", recipe)
    metrics = trainer.train_step()
    pairs = recorded[0]
    with torch.no_grad():
        after = trainer.model(pairs.x_pos, pairs.t).mean() - trainer.model(pairs.x_neg, pairs.t).mean()
    assert float(after) < float(metrics["contrastive_divergence"])
    assert torch.equal(metrics["energy_data"] - metrics["energy_samples"], metrics["contrastive_divergence"])


def test_ema_is_the_closed_form(tmp_path: Path, shards: str) -> None:
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards, train__ema_decay=0.8))
    weights = []
    for _ in range(5):
        trainer.train_step()
        weights.append({name: p.detach().double().clone() for name, p in trainer.model.named_parameters()})
    for name, found in trainer.averaged.named_parameters():
        # The first step's weights begin it: w_1 * d^4 + sum over later steps of (1 - d) * d^(n - i) * w_i.
        expected = weights[0][name] * 0.8**4
        for i in range(1, 5):
            expected = expected + 0.2 * 0.8 ** (4 - i) * weights[i][name]
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
    assert any(
        not torch.equal(p, q) for p, q in zip(trainer.averaged.parameters(), trainer.model.parameters(), strict=True)
    )


def test_buffer_slots_and_pairs(tmp_path: Path, shards: str, recorded: list[Pairs]) -> None:
    recipe = with_part(tiny_recipe(shards, data__horizontal_flip=False), Recorder)
    trainer = new_trainer(tmp_path / "run", recipe)
    data = {tuple(image.flatten().tolist()) for image in from_uint8(all_images(recipe.data))}
    wrapped = False
    for _ in range(6):
        before = {key: value.clone() for key, value in trainer.buffer.state_dict().items()}
        trainer.train_step()
        pairs, after = recorded[-1], trainer.buffer.state_dict()
        slots = pairs.slots
        assert slots is not None
        assert len(set(slots.tolist())) == recipe.train.batch_size
        # The same t for both, that of the slots; the loss was taken at it.
        assert torch.equal(pairs.t, before["t"][slots])
        # Clean images at every t.
        assert all(tuple(image.flatten().tolist()) in data for image in pairs.x_pos)
        # The refined samples, detached, in their slots with t - 1; at 0 the next sweep begins.
        assert not pairs.x_neg.requires_grad
        assert torch.equal(after["x"][slots], pairs.x_neg)
        assert not torch.equal(after["x"][slots], before["x"][slots])
        expected = torch.where(pairs.t == 1, recipe.time_steps, pairs.t - 1)
        wrapped |= bool((pairs.t == 1).any())
        assert torch.equal(after["t"][slots], expected)
        others = torch.ones(len(before["t"]), dtype=torch.bool)
        others[slots] = False
        assert torch.equal(after["x"][others], before["x"][others])
        assert torch.equal(after["t"][others], before["t"][others])
    assert wrapped


def test_negatives_are_k_langevin_steps_from_their_slots(tmp_path: Path, shards: str, recorded: list[Pairs]) -> None:
    """Recomputed by hand, with no noise: x - eta/2 * gradient, K times, at the slot's t."""
    sampler = {"use": "langevin", "steps": 3, "step_size": 0.7, "noise": 0.0}
    recipe = with_part(tiny_recipe(shards, sampler=sampler, time_steps=4), Recorder)
    trainer = new_trainer(tmp_path / "run", recipe)
    model, before = copy.deepcopy(trainer.model).eval(), trainer.buffer.state_dict()["x"].clone()
    trainer.train_step()
    pairs = recorded[0]
    going_on = pairs.t < recipe.time_steps  # at t = T a sweep starts from fresh noise
    assert bool(going_on.any())
    assert pairs.slots is not None
    x, t = before[pairs.slots][going_on], pairs.t[going_on]
    for _ in range(3):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x, t).sum(), x)
        x = x - 0.35 * gradient
    torch.testing.assert_close(pairs.x_neg[going_on], x.detach(), rtol=1e-4, atol=1e-5)


def test_images_are_mirrored_only_where_asked(tmp_path: Path, shards: str, recorded: list[Pairs]) -> None:
    """The images are bright on the left; a mirrored one is bright on the right."""
    for flip in (False, True):
        recipe = with_part(tiny_recipe(shards, data__horizontal_flip=flip), Recorder)
        trainer = new_trainer(tmp_path / f"run-{flip}", recipe)
        recorded.clear()
        for _ in range(6):
            trainer.train_step()
        x = torch.cat([pairs.x_pos for pairs in recorded])
        mirrored = x[..., 4:].mean((1, 2, 3)) > x[..., :4].mean((1, 2, 3))
        assert 10 < int(mirrored.sum()) < 38 if flip else not mirrored.any()


def test_the_learning_rate_follows_its_schedule(tmp_path: Path, shards: str) -> None:
    schedule = {"use": "linear", "start": 1e-3, "end": 2e-4}
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards, train__steps=4, optimizer={"learning_rate": schedule}))
    engine = trainer.engine
    assert isinstance(engine, PlainEngine)
    for rate in (1e-3, 8e-4, 6e-4, 4e-4):
        assert float(trainer.train_step()["learning_rate"]) == pytest.approx(rate)
        assert engine.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_clip_grad_norm_limits_the_update() -> None:
    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(4))

    clipped, free = Line(), Line()
    # A large eps makes AdamW's first update nearly proportional to the gradient.
    options = {"learning_rate": 1.0, "eps": 1e6}
    norms = []
    for module, more in ((clipped, {"clip_grad_norm": 0.5}), (free, {})):
        engine = PlainEngine(module, OptimizerOptions(**options, **more))  # type: ignore[arg-type]
        engine.optimizer.zero_grad = lambda set_to_none: None  # type: ignore[method-assign,misc]
        engine.backward((module.weight * torch.tensor([3.0, 0.0, 4.0, 0.0])).sum())
        norms.append(float(engine.step(1.0)))
    assert norms == [pytest.approx(5.0)] * 2, "the norm before clipping is what is logged"
    assert clipped.weight.grad is not None
    assert float(clipped.weight.grad.norm()) == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(clipped.weight, free.weight / 10, rtol=1e-3, atol=0)


def test_clipping_is_an_option_of_the_recipe(tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(shards, optimizer={"learning_rate": 1e-3, "clip_grad_norm": 1e-3})
    trainer = new_trainer(tmp_path / "run", recipe)
    engine = trainer.engine
    assert isinstance(engine, PlainEngine)
    # The gradients are looked at after the step that would forget them.
    engine.optimizer.zero_grad = lambda set_to_none: None  # type: ignore[method-assign,misc]
    assert float(trainer.train_step()["gradient_norm"]) > 1e-3
    grads = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    assert float(torch.nn.utils.get_total_norm(grads)) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(1, 1), (100, 3)])
def test_a_loss_that_is_not_finite_ends_training(
    log_every: int, checkpoint_every: int, tmp_path: Path, shards: str
) -> None:
    recipe = tiny_recipe(
        shards,
        # Finite while the input gradient's norm is below 1, as it is at first.
        optimizer={"learning_rate": 100.0},
        regularizers=[{"use": "wgan_lp", "weight": 3e38}],
        train__steps=50,
        train__log_every=log_every,
        train__checkpoint_every=checkpoint_every,
        train__sample_every=3,
        watchdog={"mode": "off"},
    )
    trainer = new_trainer(tmp_path / "run", recipe)
    with pytest.raises(TrainingFailed, match="not finite") as caught:
        trainer.train()
    assert caught.value.exit_code == 1
    assert "learning_rate" in str(caught.value)
    run = RunFolder(tmp_path / "run")
    saved = run.complete_checkpoints()
    assert not list(run.checkpoints.glob(".*"))
    rows = metrics_of(run.folder) if run.metrics.exists() else []
    last = saved[-1][0] if saved else 0
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in rows)
    assert last < trainer.step
    assert all(row["step"] <= last for row in rows)
    assert all(int(path.stem.removeprefix("step-")) <= last for path in run.samples.iterdir())
    assert bool(saved) == (checkpoint_every == 1)
    if saved:
        assert load_model(run.model).metadata["steps"] == str(last)
    else:
        assert not run.model.exists()


def test_a_failed_run_exits_1_without_a_traceback(tmp_path: Path, shards: str) -> None:
    sampler, watchdog = {"use": "langevin", "step_size": 1e38}, {"mode": "off"}
    table = tiny_table(shards, sampler=sampler, train__steps=50, watchdog=watchdog)
    recipe = write_recipe(tmp_path / "r.toml", table)
    result = run_cli("train", recipe, "--run-dir", tmp_path / "run")
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert "not finite" in result.err
    assert "Traceback" not in result.err


def test_all_regularizers_together(tmp_path: Path, shards: str) -> None:
    regularizers: list[dict[str, Any]] = [
        {"use": "wgan_lp", "weight": 10.0},
        {"use": "wgan_gp", "weight": 5.0, "norm": "pixel"},
        {"use": "spectral_norm"},
        {"use": "energy_l2", "weight": 0.5},
    ]
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards, regularizers=regularizers, train__steps=3))
    outcome = trainer.train()
    assert outcome.finished
    row = metrics_of(outcome.folder)[-1]
    parts = ["contrastive_divergence", "wgan_lp/penalty", "wgan_gp/penalty", "energy_l2/penalty"]
    assert row["loss"] == pytest.approx(sum(row[part] for part in parts), rel=1e-5)
    assert row["wgan_gp/penalty"] > 0
    assert load_model(outcome.folder / "model.safetensors").sample(2).shape == (2, 1, 8, 8)


RESNET = {"use": "resnet", "channels": 8, "channel_multipliers": [1, 1], "downsample": [True, False]}
TIMM = {"use": "timm", "model": "resnet18"}
BUFFERS: list[tuple[dict[str, Any], int]] = [
    ({"use": "cyclic", "size": 16}, 3),
    ({"use": "cyclic", "size": 8}, 1),
    ({"use": "persistent", "size": 16, "reinitialize": 0.5}, 1),
    ({"use": "persistent", "size": 16}, 3),
    ({"use": "fresh"}, 1),
]


@pytest.mark.parametrize("energy", [None, RESNET, TIMM], ids=["unet", "resnet", "timm"])
def test_every_energy_trains(energy: dict[str, Any] | None, tmp_path: Path, shards: str) -> None:
    table = tiny_table(shards)
    recipe = tiny_recipe(shards, energy=energy or table["energy"], train__steps=2, train__batch_size=4)
    trainer = new_trainer(tmp_path / "run", recipe)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    outcome = trainer.train()
    assert (outcome.step, outcome.finished) == (2, True)
    moved = [not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True)]
    assert sum(moved) > 0.8 * len(moved)
    assert load_model(outcome.folder / "model.safetensors").sample(1).isfinite().all()


@pytest.mark.parametrize(("buffer", "time_steps"), BUFFERS, ids=[f"{b['use']}-{t}" for b, t in BUFFERS])
def test_every_buffer_trains(buffer: dict[str, Any], time_steps: int, tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(shards, buffer=buffer, time_steps=time_steps, train__steps=2)
    trainer = new_trainer(tmp_path / "run", recipe)
    assert trainer.train().finished
    rows = metrics_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2]
    assert [row["images"] for row in rows] == [8, 16]


def test_making_negatives_changes_no_parameter(tmp_path: Path, shards: str) -> None:
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards, regularizers=[{"use": "spectral_norm"}]))
    trainer.model.train()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    source = GeneratorNoise(generator("cpu", 0, "test"))
    x = torch.randn(5, 1, 8, 8)
    with frozen(trainer.model):
        refined = trainer.sampler.refine(trainer.model, x, torch.tensor([1, 2, 3, 4, 4]), source)
    assert not torch.equal(refined, x)
    assert not refined.requires_grad
    after = trainer.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_frozen_restores_what_it_found(shards: str) -> None:
    recipe = tiny_recipe(shards)
    model = build_energy(recipe, recipe.context(), [])
    model.train()
    modules, parameters = list(model.modules()), list(model.parameters())
    modules[-1].eval()
    parameters[0].requires_grad_(False)

    def state() -> tuple[list[bool], list[bool]]:
        return [m.training for m in modules], [p.requires_grad for p in parameters]

    before = state()
    with frozen(model):
        assert not any(flag for flags in state() for flag in flags)
    assert state() == before
    with pytest.raises(ValueError, match="inside"), frozen(model):
        raise ValueError("inside")
    assert state() == before


def test_grids_and_metrics_come_when_the_recipe_says(tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(shards, train__steps=6, train__sample_every=3, train__log_every=4, train__checkpoint_every=5)
    new_trainer(tmp_path / "run", recipe).train()
    run = RunFolder(tmp_path / "run")
    assert [row["step"] for row in metrics_of(run.folder)] == [4, 6]
    assert sorted(path.name for path in run.samples.iterdir()) == ["step-000000003.png", "step-000000006.png"]
    assert [step for step, _ in run.complete_checkpoints()] == [5, 6]


def test_the_same_seed_trains_the_same_run(tmp_path: Path, shards: str) -> None:
    for name in ("a", "b"):
        new_trainer(tmp_path / name, tiny_recipe(shards, train__steps=3)).train()
        # Whatever else draws random numbers in the process does not matter.
        torch.manual_seed(12345)
        torch.rand(7)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a.keys() == b.keys()
    assert metrics_of(tmp_path / "a") == metrics_of(tmp_path / "b")
    one, other = (load_model(tmp_path / name / "model.safetensors").energy.state_dict() for name in ("a", "b"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_labels_reach_the_objective(tmp_path: Path, shards: str, recorded: list[Pairs]) -> None:
    trainer = new_trainer(tmp_path / "run", with_part(tiny_recipe(shards), Recorder))
    trainer.train_step()
    labels = recorded[0].labels
    assert isinstance(labels, Tensor)
    assert labels.tolist() == [-1] * 8, "these shards have none"
