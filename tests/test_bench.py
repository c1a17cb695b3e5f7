"""`ebmkit bench`: the reference does ebmkit's mathematics, costs are right, the report says what was done."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ebmkit import recipe as recipes
from ebmkit.bench.counting import cost_of
from ebmkit.bench.images import made_up, with_images
from ebmkit.bench.memory import PeakMemory
from ebmkit.bench.timing import Plan, Ratio, Stopwatch, Timing, interleaved, ratio, split_of
from ebmkit.bench.training import cost_of_a_step
from ebmkit.bench.yardstick import build_reference, reference_module, why_none
from ebmkit.chains import BufferChains
from ebmkit.interfaces import Pairs
from ebmkit.pipeline import frozen
from ebmkit.sections import SECTIONS
from run_helpers import new_trainer, run_cli, tiny_recipe, tiny_table, write_recipe, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


# --- The reference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["wgan_lp", "wgan_gp"])
def test_the_reference_has_ebmkit_s_loss_and_gradient(penalty: str, tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(shards, regularizers=[{"use": penalty, "weight": 20.0}])
    trainer = new_trainer(tmp_path / "run", recipe)
    reference = build_reference(recipe, "cpu", made_up(4, recipe.data.shape))
    x_pos, x_neg = torch.randn(2, 8, *recipe.data.shape, generator=random_of(1))
    t = torch.arange(8) % recipe.time_steps + 1
    a = torch.rand(8, generator=random_of(5)).view(-1, 1, 1, 1)
    x_hat = a * x_neg + (1 - a) * x_pos

    def norms() -> Tensor:
        return reference_module().gradient(trainer.model, x_hat, t).flatten(1).norm(dim=1)

    # On both sides of 1, so that a one-sided penalty and a two-sided one differ.
    last = [module for module in trainer.model.modules() if isinstance(module, nn.Linear)][-1]
    last.weight.data /= norms().median()
    assert norms().min() < 0.9
    assert norms().max() > 1.1
    reference.energy.load_state_dict(trainer.model.state_dict())
    loss, _ = trainer._loss(Pairs(trainer.model, x_pos, x_neg, t), random_of(5))
    theirs = reference.loss(x_pos, x_neg, t, x_hat.clone())
    torch.testing.assert_close(theirs, loss, rtol=1e-5, atol=1e-6)
    ours = torch.autograd.grad(loss, list(trainer.model.parameters()), allow_unused=True)
    others = torch.autograd.grad(theirs, reference.parameters, allow_unused=True)
    flat = [torch.cat([g.flatten() for g in found if g is not None]) for found in (ours, others)]
    assert float((flat[1] - flat[0]).norm() / flat[0].norm()) < 1e-5


def random_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_reference_refines_as_ebmkit_does(tmp_path: Path, shards: str) -> None:
    """With the same noise: the reference draws its own from torch's global generator, in the same order."""
    schedules = {"step_size": {"use": "linear", "start": 9.0, "end": 1.0}, "noise": {"use": "linear", "start": 0.3}}
    recipe = tiny_recipe(shards, sampler={"use": "langevin", "steps": 2, **schedules})
    trainer = new_trainer(tmp_path / "run", recipe)
    reference = build_reference(recipe, "cpu", made_up(4, recipe.data.shape))
    reference.energy.load_state_dict(trainer.model.state_dict())
    x, t = torch.randn(6, *recipe.data.shape, generator=random_of(2)), torch.tensor([1, 2, 3, 4, 4, 1])
    with frozen(trainer.model), torch.no_grad():
        ours = BufferChains(trainer.model, trainer.sampler, trainer.buffer, random_of(7)).refine(x, t)
    torch.manual_seed(7)
    theirs = reference.refine(reference.energy, x, t)
    assert float((ours - x).norm()) > 1
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_a_step_of_the_reference_moves_buffer_weights_and_average(shards: str) -> None:
    recipe = tiny_recipe(shards, train__ema_decay=0.75)
    reference = build_reference(recipe, "cpu", made_up(32, recipe.data.shape))
    before = [parameter.detach().clone() for parameter in reference.parameters]
    slots_before, x_before = reference.buffer_t.clone(), reference.buffer_x.clone()
    torch.manual_seed(3)
    chosen = torch.randperm(40)[:8]
    torch.manual_seed(3)
    assert torch.isfinite(reference.train_step())
    after = slots_before[chosen]
    assert torch.equal(reference.buffer_t[chosen], torch.where(after == 1, recipe.time_steps, after - 1))
    changed = (reference.buffer_x != x_before).flatten(1).any(1)
    assert sorted(chosen.tolist()) == changed.nonzero()[:, 0].tolist()
    for old, new, average in zip(before, reference.parameters, reference.averages, strict=True):
        torch.testing.assert_close(average, 0.75 * old + 0.25 * new.detach())
    assert any(not torch.equal(old, new) for old, new in zip(before, reference.parameters, strict=True))
    assert reference.sample(3).shape == (3, 1, 8, 8)


def test_the_reference_knows_nothing_of_ebmkit() -> None:
    source = Path(str(reference_module().__file__)).read_text(encoding="utf-8")
    assert "import ebmkit" not in source
    assert "from ebmkit" not in source


REASONS: list[tuple[dict[str, Any], str]] = [
    ({"buffer": {"use": "fresh"}}, "buffer 'fresh'"),
    ({"regularizers": []}, "not none"),
    ({"regularizers": [{"use": "wgan_lp"}, {"use": "energy_l2"}]}, "wgan_lp, energy_l2"),
    ({"regularizers": [{"use": "wgan_lp", "norm": "pixel"}]}, "norm"),
    ({"sampler": {"use": "langevin", "steps": 2, "clamp": 1.0}}, "clamps"),
    ({"optimizer": {"clip_grad_norm": 1.0}}, "parameter gradient"),
]


@pytest.mark.parametrize(("change", "reason"), REASONS, ids=[reason for _, reason in REASONS])
def test_no_ratio_where_the_reference_computes_something_else(change: dict[str, Any], reason: str, shards: str) -> None:
    assert why_none(tiny_recipe(shards)) is None
    assert reason in str(why_none(tiny_recipe(shards, **change)))


@pytest.mark.parametrize("name", recipes.shipped_recipes())
def test_shipped_recipes_have_a_reference(name: str) -> None:
    assert why_none(recipes.load(name)) is None


# --- Counting and timing ---------------------------------------------------------------------------------------------


def test_flops_and_bytes_of_a_product_and_a_convolution() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert cost_of(lambda: a @ b) == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21))
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    flops, traffic = cost_of(lambda: nn.functional.conv2d(x, weight, padding=1))
    assert flops == 2 * (2 * 4 * 8 * 8) * (3 * 3 * 3)
    assert traffic == 4 * (x.numel() + weight.numel() + 2 * 4 * 64)
    assert cost_of(lambda: x.view(2, -1)[:, :5]) == (0, 0), "views move nothing"


def test_the_cost_of_a_step_is_2k_12_forwards(shards: str) -> None:
    """A Langevin step is 2 forwards, objective and backward 6, the penalty with double backward 6: 2K + 12."""
    recipe = tiny_recipe(shards)
    reference = build_reference(recipe, "cpu", made_up(2, recipe.data.shape))
    x, t = torch.randn(8, *recipe.data.shape), torch.ones(8, dtype=torch.int64)
    forward = cost_of(lambda: reference.energy(x, t)).flops
    multiple = cost_of_a_step(recipe, "cpu").flops / forward
    # No gradient by the image is taken in the objective, which saves the first layer's part of it.
    assert multiple == pytest.approx(2 * 2 + 12, rel=0.05)


def test_calls_take_turns_and_the_ratio_has_its_spread() -> None:
    calls: list[str] = []
    found = interleaved(
        {"a": lambda: (calls.append("a"), time.sleep(0.002)), "b": lambda: (calls.append("b"), time.sleep(0.006))},
        "cpu",
        Plan(steps=2, rounds=3),
    )
    assert "".join(calls) == "ab" + "aabb" + "bbaa" + "aabb"
    times = {name: Timing(values, 0.0, None) for name, values in found.items()}
    measured = ratio(times["a"], times["b"])
    assert 1.5 < measured.lowest <= measured.value <= measured.highest < 4
    exact = ratio(Timing((1.0, 2.0, 4.0), 0, None), Timing((2.0, 6.0, 4.0), 0, None))
    assert exact == Ratio(2.0, 1.0, 3.0)


def test_the_plan_fits_its_seconds() -> None:
    assert Plan(seconds=20).fitting(0.01) == (20, 10)
    assert Plan(seconds=20).fitting(0.4) == (5, 10)
    assert Plan(seconds=20).fitting(4.0) == (1, 5)
    assert Plan(seconds=20).fitting(100.0) == (1, 2)
    assert Plan(steps=7, rounds=1).fitting(100.0) == (7, 1)


def test_sections_are_summed_and_the_rest_is_other() -> None:
    watch = Stopwatch("cpu")
    for _ in range(2):
        with watch.of("data"):
            time.sleep(0.01)
        with watch.of("penalty"):
            time.sleep(0.03)
    split = split_of(watch, whole=0.05, steps=2)
    assert split["data"] == pytest.approx(0.01, abs=0.008)
    assert split["penalty"] == pytest.approx(0.03, abs=0.008)
    assert sum(split.values()) == pytest.approx(0.05)


def test_a_training_step_goes_through_every_section(tmp_path: Path, shards: str) -> None:
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards))
    watch = trainer.sections = Stopwatch("cpu")
    trainer.train_step()
    assert tuple(sorted(watch.seconds)) == tuple(sorted(SECTIONS))
    assert all(seconds > 0 for seconds in watch.seconds.values())


def test_peak_memory_is_that_of_the_largest_moment() -> None:
    with PeakMemory("cpu") as memory:
        torch.ones(16_000_000)  # 64 MB, gone again
    if memory.rise is None:
        pytest.skip("this system does not tell the peak of a process")
    assert 60e6 < memory.rise < 100e6
    with PeakMemory("cpu") as memory:
        torch.ones(1000)
    assert memory.rise < 20e6


def test_missing_shards_are_made_up(tmp_path: Path, shards: str) -> None:
    told: list[str] = []
    recipe = tiny_recipe(shards)
    assert with_images(recipe, tmp_path / "a", told.append) == (recipe, False)
    assert told == []
    absent = tiny_recipe(str(tmp_path / "none-*.tar"))
    found, invented = with_images(absent, tmp_path / "b", told.append)
    assert invented
    assert "made-up" in told[0]
    assert new_trainer(tmp_path / "run", found).data.next().images.shape == (8, 1, 8, 8)


# --- The command -----------------------------------------------------------------------------------------------------


def test_bench_reports_everything_and_leaves_nothing_behind(tmp_path: Path, shards: str) -> None:
    (tmp_path / "work").mkdir()
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards))
    words = ["bench", recipe, "--train", "--sample", "--data", "--steps", 2, "--rounds", 2, "--batch-size", 4]
    files = ["--json", tmp_path / "r.json", "--picture", tmp_path / "r.png"]
    result = run_cli(*words, *files, "--device", "cpu", "--set", "sampler.steps=3", cwd=tmp_path / "work")
    assert result.code == 0, result.err
    assert list((tmp_path / "work").iterdir()) == []
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["changes"] == {"sampler.steps": 3, "train.batch_size": 4, "train.device": "cpu"}
    assert report["no_reference"] is None
    assert report["machine"]["torch"] == torch.__version__
    assert report["command"][:2] == ["ebmkit", "bench"]
    for name in ("training", "sampling"):
        part = report[name]
        assert len(part["ebmkit"]["seconds"]) == len(part["reference"]["seconds"]) == 2
        assert part["ratio"]["lowest"] <= part["ratio"]["value"] <= part["ratio"]["highest"]
        assert part["ebmkit"]["images_per_second"] == pytest.approx(4 / part["ebmkit"]["median"])
        speed = part["cost"]["flops"] / part["ebmkit"]["median"]
        assert part["rates"]["share_of_float32"] == pytest.approx(speed / report["ceilings"]["float32"])
    assert report["sampling"]["gradients"] == 4 * 3
    assert list(report["training"]["split"]) == [*SECTIONS, "other"]
    assert report["training"]["split"]["langevin"] > 0
    assert report["data"].keys() == {"streamed", "cached"}
    assert all(0 < item["waiting"] < 1 for item in report["data"].values())
    assert report["data"]["cached"]["images_per_second"] > report["data"]["streamed"]["images_per_second"]
    for word in ("training, batch 4", "sampling, batch 4", "reference", "langevin", "streamed", "TFLOP/s"):
        assert word in result.out
    assert "\x1b" not in result.out
    with Image.open(tmp_path / "r.png") as picture:
        assert len(picture.convert("RGB").getcolors(1_000_000) or ()) > 50


def test_bench_says_why_there_is_no_ratio(tmp_path: Path) -> None:
    table = tiny_table("missing/*.tar", buffer={"use": "fresh"}, time_steps=1)
    words = ["--steps", 1, "--rounds", 1, "--json", tmp_path / "r.json", "--picture", tmp_path / "r.svg"]
    result = run_cli("bench", write_recipe(tmp_path / "r.toml", table), "--train", *words, cwd=tmp_path)
    assert result.code == 0, result.err
    assert "no reference: buffer 'fresh' is not the reference's 'cyclic'" in result.out
    assert "made up" in result.out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["training"]["ratio"] is report["training"]["reference"] is report["sampling"] is None
    assert report["made_up_images"]
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["digits", "--json", "nowhere/r.json"], "nowhere does not exist"),
        (["digits", "--picture", "r.txt"], ".png"),
        (["digits", "--batch-size", "20000"], "train.batch_size"),
        (["digits", "--device", "nonsense"], "nonsense"),
        (["digitz"], "digits"),
    ],
)
def test_bad_input_ends_before_anything_is_measured(words: list[str], told: str, tmp_path: Path) -> None:
    result = run_cli("bench", *words, cwd=tmp_path)
    assert result.code == 2
    assert told in result.err
    assert list(tmp_path.iterdir()) == []
