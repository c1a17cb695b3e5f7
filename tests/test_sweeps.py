"""Sweeps: the file, the runs that it names, and real runs that fail, are killed, and go on."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from safetensors.torch import load_file

import ebmkit
from ebmkit.errors import BadInput, RecipeError
from ebmkit.run_folder import RunFolder
from ebmkit.sweeps.evaluating import evaluate_words
from ebmkit.sweeps.file import load_sweep, shipped_sweeps
from ebmkit.sweeps.folder import SweepFolder
from ebmkit.sweeps.plan import plan
from ebmkit.sweeps.table import Row, markdown, means_of
from run_helpers import Command, run_cli, tiny_table, write_recipe, write_shards


def write_sweep(folder: Path, text: str, **train: Any) -> Path:
    """A sweep file beside a tiny recipe `tiny.toml`."""
    shards = write_shards(folder / "shards")
    write_recipe(folder / "tiny.toml", tiny_table(shards, **{f"train__{key}": value for key, value in train.items()}))
    path = folder / "mine.toml"
    path.write_text('recipe = "tiny.toml"\n' + text, encoding="utf-8")
    return path


# --- The file --------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_choice_with_every_seed(tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path,
        "seeds = [0, 1]\n[set]\ntrain.steps = 3\n[grid]\nsampler.step_size = [0.5, 'auto']\ntime_steps = [2, 3]\n",
    )
    runs = plan(load_sweep(path))
    assert [run.name for run in runs[:3]] == [
        "step_size-0.5_time_steps-2_seed-0",
        "step_size-0.5_time_steps-2_seed-1",
        "step_size-0.5_time_steps-3_seed-0",
    ]
    assert len(runs) == 8
    assert {(run.recipe.time_steps, run.seed) for run in runs} == {(2, 0), (2, 1), (3, 0), (3, 1)}
    assert all(run.recipe.train.steps == 3 and run.recipe.seed == run.seed for run in runs)
    assert runs[0].recipe.to_table()["sampler"]["step_size"] == 0.5
    assert (runs[0].gradients, runs[-1].gradients) == (4, 6)


def test_points_of_a_list_may_have_names_and_parts(tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path,
        '[[points]]\nname = "long"\ntrain.steps = 9\n[[points]]\nsampler.noise = { use = "linear", start = 0.2 }\n'
        "[[points]]\nregularizers.wgan_lp.weight = 5.0\n",
    )
    runs = plan(load_sweep(path))
    assert [run.name for run in runs] == ["long", "noise-linear-0.2", "wgan_lp.weight-5"]
    assert runs[0].recipe.train.steps == 9
    assert runs[1].recipe.to_table()["sampler"]["noise"]["start"] == 0.2
    assert runs[2].recipe.regularizers[0].options.weight == 5.0


def test_names_are_never_shared(tmp_path: Path) -> None:
    runs = plan(load_sweep(write_sweep(tmp_path, "[grid]\nsampler.step_size = [0.50000001, 0.50000002]\n")))
    assert len({run.name for run in runs}) == 2
    assert all(run.name.startswith("step_size-0.5-") for run in runs)


def test_all_points_are_checked_and_all_problems_told(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "seeds = [0, 1]\n[grid]\nsampler.steps = [0, 2]\ntrain.batch_size = [8, 99]\n")
    with pytest.raises(RecipeError) as caught:
        plan(load_sweep(path))
    told = [problem.path for problem in caught.value.problems]
    assert told == [
        "steps-0_batch_size-8_seed-0: sampler.steps",
        "steps-0_batch_size-99_seed-0: sampler.steps",
        "steps-2_batch_size-99_seed-0: buffer.size",
    ]


def test_values_from_outside_are_all_points_own(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "[set]\ntrain.steps = 3\n[grid]\nsampler.steps = [1, 2]\n")
    runs = plan(load_sweep(path, {"train.steps": 5, "sampler.noise": 0.4}))
    assert [run.recipe.train.steps for run in runs] == [5, 5]
    assert [run.recipe.sampler.options.noise(0.0) for run in runs] == [0.4, 0.4]
    told = run_cli("sweep", path, "--dry-run", "--set", "train.steps=7")
    assert told.out.count("(7 steps") == 2
    refused = run_cli("sweep", path, "--dry-run", "--set", "sampler.steps=7")
    assert refused.code == 2
    assert "--set sampler.steps  this is a value that the sweep varies" in refused.err


def test_a_value_that_holds_another_is_the_same_value(tmp_path: Path) -> None:
    """`optimizer.learning_rate.start` from outside would change a point's own `optimizer.learning_rate`."""
    point = '[[points]]\noptimizer.learning_rate = { use = "cosine", start = 2e-4 }\n'
    path = write_sweep(tmp_path, point)
    for key in ("optimizer.learning_rate", "optimizer.learning_rate.start", "optimizer"):
        with pytest.raises(RecipeError, match="this is a value that the sweep varies"):
            load_sweep(path, {key: 7e-4})
    assert load_sweep(path, {"optimizer.learning_rates": 7e-4}).common == {"optimizer.learning_rates": 7e-4}
    # And what the file has for all points is replaced, with its parts.
    path = write_sweep(tmp_path, "[set]\nsampler.noise.start = 0.2\ntrain.steps = 3\n")
    assert load_sweep(path, {"sampler.noise": 0.1}).common == {"train.steps": 3, "sampler.noise": 0.1}
    path = write_sweep(tmp_path, "[set]\noptimizer.learning_rate.start = 1e-3\n" + point)
    with pytest.raises(RecipeError, match="one is a part of the other"):
        load_sweep(path)


def test_metrics_may_be_a_list(tmp_path: Path) -> None:
    """The command has their names with commas between; files are given one by one."""
    text = '[evaluate]\nmetrics = ["pixel_std_ratio", "pixel_frechet_distance"]\nweights = ["a", "b"]\nfloor = true\n'
    assert evaluate_words(load_sweep(write_sweep(tmp_path, text))) == [
        *("--metrics", "pixel_std_ratio,pixel_frechet_distance"),
        *("--weights", "a", "--weights", "b", "--floor"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sedes = [1]", "did you mean 'seeds'"),
        ("[grid]\nsampler.steps = 3", "grid.sampler.steps"),
        ("[grid]\nseed = [1]", "seeds are given by"),
        ("seeds = [1, 1]", "the same seed twice"),
        ("[grid]\nsampler.steps = [1]\n[[points]]\nsampler.steps = 1", "not both"),
        ("[[points]]\nsampler.steps = 1\n[[points]]\nsampler.steps = 1", "same values"),
        ("[evaluate]\ncuont = 3", "did you mean 'count'"),
        ("[evaluate]\ncount = 1", "count"),
    ],
)
def test_a_mistake_in_the_file_is_told(text: str, told: str, tmp_path: Path) -> None:
    result = run_cli("sweep", write_sweep(tmp_path, text), "--dry-run")
    assert result.code == 2
    assert told in result.err


def test_a_missing_sweep_names_those_that_ship() -> None:
    with pytest.raises(BadInput, match="did you mean 'table4'"):
        load_sweep("table44")


@pytest.mark.parametrize("name", sorted(shipped_sweeps()))
def test_every_point_of_a_shipped_sweep_binds(name: str) -> None:
    sweep = load_sweep(name)
    runs = plan(sweep)
    assert len(runs) == len(sweep.points) * len(sweep.seeds or (0,)) >= 3
    evaluate_words(sweep)


def test_the_shipped_sweeps_are_the_papers() -> None:
    recipes = {name: [run.recipe for run in plan(load_sweep(name))] for name in ("table4", "table5", "table6")}
    assert [recipe.time_steps for recipe in recipes["table4"]] == [6, 10, 20, 30, 40]
    assert [recipe.sampler.options.steps for recipe in recipes["table5"]] == [1, 3, 5, 10, 30]
    assert [recipe.sampler.options.noise(0.0) for recipe in recipes["table6"]] == [0.005, 0.05, 0.1, 0.3, 0.5]
    assert all(recipe.sampler.options.noise(1.0) == 0 for recipe in recipes["table6"])
    ratios = [run.recipe.sampler.options.auto_ratio for run in plan(load_sweep("figure4"))]
    assert [ratio / ratios[1] for ratio in ratios] == pytest.approx([2.39 / 2.89, 1, 3.39 / 2.89], rel=0.01)


def test_dry_run_lists_and_writes_nothing(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "[grid]\nsampler.steps = [1, 2]\n")
    before = sorted(tmp_path.iterdir())
    result = run_cli("sweep", path, "--dry-run", cwd=tmp_path)
    assert result.code == 0
    assert result.out.splitlines()[0].startswith("steps-1: sampler.steps=1")
    assert "2 runs" in result.out
    assert sorted(tmp_path.iterdir()) == before


# --- The table -------------------------------------------------------------------------------------------------------


def row(value: float, seed: int, distance: float | None) -> Row:
    state, metrics = ("failed", {}) if distance is None else ("done", {"pixel_frechet_distance": distance})
    error = "training: it | broke" if distance is None else None
    return Row(f"s-{value}_{seed}", {"sampler.step_size": value}, seed, state, error, metrics, 5, 2.0, 100.0, 8)


def test_means_and_failures_of_a_table() -> None:
    rows = [row(0.5, 0, 1.0), row(0.5, 1, 3.0), row(0.7, 0, None), row(0.7, 1, 4.0)]
    means = means_of(rows)
    assert means is not None
    assert means[0] == ["step_size", "seeds", "pixel_frechet_distance"]
    # The standard deviation of 1 and 3, with n - 1, is sqrt(2).
    assert means[1] == [["0.5", "2", "2 ± 1.4"], ["0.7", "1 of 2", "4"]]
    text = markdown(rows)
    assert "| 0.7 | 0 | failed |  | 5 | 2 | 100 | 8 |" in text
    assert "- s-0.7_0 failed: training: it | broke" in text
    assert means_of(rows[1:3]) is None


# --- Real runs -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_failed_run_does_not_end_the_others_and_finished_ones_are_kept(tmp_path: Path) -> None:
    points = '[[points]]\nname = "good"\nsampler.steps = 1\n[[points]]\nname = "bad"\nsampler.step_size = 1e38\n'
    evaluate = '[evaluate]\ncount = 8\nseed = 5\nmetrics = ["pixel_frechet_distance"]\n'
    path, out = write_sweep(tmp_path, points + evaluate, steps=4), tmp_path / "out"
    result = run_cli("sweep", path, "--out-dir", out, "--jobs", 2)
    assert result.code == 1, result.out + result.err
    assert "bad failed: training: " in result.out
    assert "not finite" in result.out
    rows = {line["run"]: line for line in csv.DictReader((out / "table.csv").open(encoding="utf-8"))}
    assert (rows["good"]["state"], rows["bad"]["state"]) == ("done", "failed")
    assert rows["good"]["T*K"] == "4"
    model = RunFolder(out / "good").model
    measured = ebmkit.evaluate(model, count=8, seed=5)["pixel_frechet_distance"]
    assert float(rows["good"]["pixel_frechet_distance"]) == pytest.approx(measured, rel=1e-4)
    assert "| good |" in (out / "table.md").read_text(encoding="utf-8")

    # Without the bad point and with a new one: what is finished is kept.
    before = model.stat().st_mtime_ns
    path = write_sweep(tmp_path, points.partition('[[points]]\nname = "bad"')[0] + evaluate, steps=4)
    path.write_text(path.read_text(encoding="utf-8") + '[[points]]\nname = "more"\nsampler.steps = 2\n')
    result = run_cli("sweep", path, "--out-dir", out)
    assert result.code == 0, result.out + result.err
    assert "1 of them finished before" in result.out
    assert "not in" in result.out
    assert model.stat().st_mtime_ns == before
    assert [line["run"] for line in csv.DictReader((out / "table.csv").open(encoding="utf-8"))] == ["good", "more"]

    # Another base recipe under the same names is refused, and so is another sweep.
    write_sweep(tmp_path, "", steps=7)
    other = tmp_path / "other.toml"
    other.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    path.write_text('recipe = "tiny.toml"\n' + points, encoding="utf-8")
    result = run_cli("sweep", path, "--out-dir", out)
    assert result.code == 2
    assert "train.steps" in result.err
    result = run_cli("sweep", other, "--out-dir", out)
    assert result.code == 2
    assert "holds the sweep 'mine'" in result.err


@pytest.mark.slow
def test_the_first_seed_of_every_point_comes_first(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "seeds = [4, 2]\n[grid]\nsampler.steps = [1, 2]\n[evaluate]\ncount = 8\n", steps=2)
    result = run_cli("sweep", path, "--out-dir", tmp_path / "out")
    assert result.code == 0, result.out + result.err
    begun = [line.removesuffix(": begins") for line in result.out.splitlines() if line.endswith(": begins")]
    assert begun == ["steps-1_seed-4", "steps-2_seed-4", "steps-1_seed-2", "steps-2_seed-2"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "")
    result = run_cli("sweep", path, "--out-dir", tmp_path)
    assert result.code == 2
    assert "no sweep's folder" in result.err


def test_a_sweep_that_is_killed_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    text = "seeds = [0, 1]\n[evaluate]\ncount = 8\n"
    path, out = write_sweep(tmp_path, text, steps=120, checkpoint_every=10, log_every=1), tmp_path / "out"
    killed = Command("sweep", path, "--out-dir", out, "--jobs", 2, cwd=tmp_path)
    folder = SweepFolder(out)
    runs = [folder.run(f"seed-{seed}") for seed in (0, 1)]
    until(lambda: all(run.complete_checkpoints() for run in runs))
    killed.kill(signal.SIGKILL)
    assert killed.wait().code == -signal.SIGKILL
    # The kernel tells the children, which write a checkpoint and end.
    until(lambda: not processes_of(out))
    assert not any(run.complete_checkpoints()[-1][0] == 120 for run in runs)
    assert not (out / "table.csv").exists()

    result = run_cli("sweep", path, "--out-dir", out, "--jobs", 2)
    assert result.code == 0, result.out + result.err
    log = folder.log("seed-0").read_text(encoding="utf-8")
    assert "going on from step" in log
    rows = list(csv.DictReader((out / "table.csv").open(encoding="utf-8")))
    assert [(line["state"], line["step"]) for line in rows] == [("done", "120"), ("done", "120")]
    assert len(folder.read("seed-0").attempts) == 2
    assert all(attempt["seconds"] > 0 for attempt in folder.read("seed-0").attempts)

    straight = ebmkit.train(folder.recipe("seed-0"), run_dir=tmp_path / "straight")
    one, other = load_file(straight.model), load_file(runs[0].model)
    assert one.keys() == other.keys()
    assert all(bool((one[key] == other[key]).all()) for key in one)


def test_sigterm_stops_the_runs_with_a_checkpoint(tmp_path: Path) -> None:
    path, out = write_sweep(tmp_path, "seeds = [4]\n", steps=100_000, checkpoint_every=100_000), tmp_path / "out"
    asked = Command("sweep", path, "--out-dir", out, cwd=tmp_path)
    folder = SweepFolder(out)
    until(lambda: folder.run("seed-4").metrics.is_file())
    asked.kill(signal.SIGTERM)
    result = asked.wait()
    assert result.code == 75, result.err
    assert "nothing is lost" in result.out
    assert len(folder.run("seed-4").complete_checkpoints()) == 1
    assert processes_of(out) == []
    assert [line["state"] for line in csv.DictReader((out / "table.csv").open(encoding="utf-8"))] == ["stopped"]


def processes_of(folder: Path) -> list[int]:
    """The processes whose command line names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(os.fsencode(folder)) for word in words):
            found.append(int(path.parent.name))
    return found


def until(holds: Callable[[], bool], seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def test_the_whole_recipe_of_a_run_is_written(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "[grid]\nsampler.steps = [1]\n")
    sweep = load_sweep(path)
    (run,) = plan(sweep)
    folder = SweepFolder(tmp_path / "out")
    folder.prepare(sweep, [run])
    assert ebmkit.check(folder.recipe(run.name)) == run.recipe
    assert tomli_w.dumps(run.recipe.to_table()) == folder.recipe(run.name).read_text(encoding="utf-8")
