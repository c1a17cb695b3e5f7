"""Tuning the step size: the search on curves that are known, and real short runs."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ebmkit
from ebmkit import overrides
from ebmkit.console import Silent
from ebmkit.data import all_images
from ebmkit.sampling import from_uint8
from ebmkit.tuning.rule import HIGHEST, Trial, best, next_step_size
from ebmkit.tuning.running import reach_of
from ebmkit.tuning.trials import measure, real_images
from ebmkit.tuning.writing import with_step_size
from run_helpers import RECIPES, run_cli, tiny_recipe, tiny_table, write_recipe, write_shards


def search(gap: Callable[[float], float], start: float, most: int = 30) -> list[Trial]:
    trials = [Trial(start, "", gap(start))]
    while len(trials) < most and (planned := next_step_size(trials)) is not None:
        trials.append(Trial(*planned, gap(planned[0])))
    return trials


@pytest.mark.parametrize("start", [0.1, 0.6, 1.0, 7.0])
def test_the_search_finds_where_samples_are_slightly_below(start: float) -> None:
    trials = search(lambda eta: 8 * math.log(eta), start)
    found = best(trials)
    assert found is not None
    assert found.fits
    assert 1.0 < found.step_size <= math.exp(HIGHEST / 8) + 0.01
    assert trials[-1] == found
    assert len(trials) <= 3 + abs(math.log(start)) / math.log(1.25)


def test_a_steep_curve_is_bracketed_and_given_up_where_runs_tell_no_more() -> None:
    trials = search(lambda eta: -5.0 if eta < 1.37 else 9.0, 1.0)
    assert not any(trial.fits for trial in trials)
    assert next_step_size(trials) is None
    found = best(trials)
    assert found is not None
    # -5 is nearer to the target than 9 is.
    assert found.gap == -5.0
    assert found.step_size == pytest.approx(1.37, rel=0.04)


def test_training_that_diverges_counts_as_too_far() -> None:
    trials = search(lambda eta: math.inf if eta > 2 else 4 * math.log(eta), 3.0)
    assert trials[1].step_size < 3.0
    assert trials[-1].fits
    assert best([Trial(1.0, "", math.inf)]) is None


def test_the_gap_is_in_deviations_of_real_images() -> None:
    def energy(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).sum(1)

    real = torch.tensor([-1.0, 1.0] * 100).view(-1, 1, 1, 1)
    found = measure(energy, torch.full((7, 1, 1, 1), -0.5), real)
    assert (found.samples, found.data) == (-0.5, 0.0)
    assert found.deviation == pytest.approx(math.sqrt(200 / 199))
    assert found.gap == pytest.approx(0.5 / math.sqrt(200 / 199))


def test_real_images_are_the_recipes(tmp_path: Path) -> None:
    recipe = tiny_recipe(write_shards(tmp_path / "shards"))
    known = {image.numpy().tobytes() for image in from_uint8(all_images(recipe.data))}
    found = real_images(recipe, 20, Silent())
    assert found.shape == (20, 1, 8, 8)
    assert {image.numpy().tobytes() for image in found} <= known
    assert len({image.numpy().tobytes() for image in found}) == 20


# --- The new recipe --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_new_recipe_is_the_old_one_with_its_comments(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    new = with_step_size(text, 0.625, ["found"])
    assert tomllib.loads(new) == overrides.apply(tomllib.loads(text), {"sampler.step_size": 0.625})
    before, after = text.splitlines(), new.splitlines()
    (old,) = [line for line in before if line.startswith("step_size = ")]
    place = before.index(old)
    assert after == [*before[:place], "# found", "step_size = 0.625", *before[place + 1 :]]


@pytest.mark.parametrize(
    "text",
    [
        '[sampler]\nuse = "langevin"\n[train]\nsteps = 3\n',
        'sampler = { use = "langevin", step_size = 1.0 }\n',
        'sampler.use = "langevin"\nsampler.step_size = "auto"\n',
        '[sampler]\nuse = "langevin"\n[other]\nstep_size = 3\n',
        '[sampler]\nuse = """\n[x]"""\nstep_size = 3\n',
    ],
)
def test_other_ways_to_write_a_recipe(text: str) -> None:
    expected = tomllib.loads(text)
    expected["sampler"]["step_size"] = 0.5
    new = with_step_size(text, 0.5, ["found"])
    assert tomllib.loads(new) == expected
    assert "# found" in new


# --- Real short runs -------------------------------------------------------------------------------------------------


def test_tune_tries_tells_and_writes(tmp_path: Path) -> None:
    table = tiny_table(write_shards(tmp_path / "shards"), train__steps=5000)
    recipe, out = write_recipe(tmp_path / "tiny.toml", table), tmp_path / "new.toml"
    words = ("--steps", 12, "--trials", 2, "--seeds", 1, "--count", 16, "--set", "train.batch_size=4")
    result = run_cli("tune", recipe, "--out", out, *words, cwd=tmp_path)
    assert result.code == 0, result.err
    lines = [line for line in result.out.splitlines() if line.startswith("step size ") and ": gap " in line]
    assert 1 <= len(lines) <= 2
    assert "the reachability rule: a sweep just covers its way" in result.out
    # A table in a pipe is not folded.
    assert f"  {lines[0].rpartition(', ')[2]}" in result.out
    bound = ebmkit.check(out)
    old = ebmkit.check(recipe)
    found = bound.to_table()["sampler"]["step_size"]
    assert f"step_size = {found:g}" in result.out
    # The trials' own values are not the recipe's.
    assert (bound.train, bound.data, bound.energy) == (old.train, old.data, old.energy)
    assert "Found by `ebmkit tune`" in out.read_text(encoding="utf-8")
    first = float(lines[0].split()[2])
    assert reach_of(recipe, {}, first) == pytest.approx(1.0, abs=0.01)
    assert not list(tmp_path.glob("runs*"))

    again = run_cli("tune", recipe, "--out", out, *words)
    assert again.code == 2
    assert "never overwritten" in again.err


def test_no_trial_begins_that_does_not_fit_into_the_budget(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.toml", tiny_table(write_shards(tmp_path / "shards")))
    words = ("--steps", 10, "--seeds", 1, "--count", 16, "--trials", 9, "--budget", 0)
    result = run_cli("tune", recipe, "--out", tmp_path / "new.toml", *words)
    assert result.code == 0, result.err
    assert result.out.count(": gap ") == 1
    assert "does not fit into the budget" in result.out or "2.16 fits" in result.out
    assert (tmp_path / "new.toml").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--set", "sampler.noise=0.2"), "change it in the recipe"),
        (("--set", "time_steps=3"), "change it in the recipe"),
        (("--set", "regularizers.0.weight=3"), "change it in the recipe"),
        (("--set", "trian.steps=3"), "did you mean 'train'"),
        (("--out", "missing/new.toml"), "does not exist"),
        (("--out", "new.txt"), "ends in .toml"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_runs(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    result = run_cli("tune", "digits", *words, cwd=tmp_path)
    assert result.code == 2
    assert told in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_schedule_is_not_tuned(tmp_path: Path) -> None:
    schedule = {"use": "linear", "start": 1.0, "end": 0.5}
    table = tiny_table(write_shards(tmp_path / "shards"))
    table["sampler"]["step_size"] = schedule
    result = run_cli("tune", write_recipe(tmp_path / "r.toml", table), "--out", tmp_path / "new.toml")
    assert result.code == 2
    assert "is a schedule" in result.err
