"""The experiments behind the recipes: their figures, how points are compared, and the page."""

from __future__ import annotations

import json
import math
import operator
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ebmkit
from ebmkit.data import all_images
from ebmkit.errors import BadInput
from ebmkit.metrics.statistics import pixel_std_ratio
from ebmkit.sampling import from_uint8, to_uint8
from run_helpers import ROOT, environment, tiny_table, write_recipe, write_shards

sys.path.insert(0, str(ROOT))
from benchmarks.results import contest
from benchmarks.results.calibration import crossing
from benchmarks.results.comparing import compare, noise, student
from benchmarks.results.contest import REFERENCE, contestants
from benchmarks.results.gathering import named
from benchmarks.results.page import main_metric, write
from benchmarks.results.picture import draw_ratios
from benchmarks.results.processes import in_processes

METRIC = "pixel_frechet_distance"


def point(name: str, *values: float, failed: int = 0) -> dict[str, Any]:
    """A point with these values of the metric, and so many failed runs."""
    runs = [{"seed": seed, "state": "done", "metrics": {METRIC: value}} for seed, value in enumerate(values)]
    return {"name": name, "runs": runs + [{"seed": 9, "state": "failed", "metrics": {}}] * failed}


def test_points_are_compared_as_ratios() -> None:
    found = compare([point("base", 1.0, 1.1), point("half", 0.5, 0.55), point("more", 1.5, 1.66)], METRIC)
    assert found["base"].ratio == found["base"].low == found["base"].high == 1
    assert found["half"].ratio == pytest.approx(0.5)
    assert (found["half"].verdict, found["more"].verdict) == ("better", "worse")
    assert found["half"].low < 0.5 < found["half"].high


def test_the_luck_of_a_seed_is_taken_out() -> None:
    """What moves all points alike is no doubt about their ratios, whether all of them have all seeds or not."""
    lucky = [point("base", 1.0, 1.5, 0.7), point("a", 0.82, 1.19, 0.56), point("b", 1.21, 1.78, 0.85)]
    assert noise(lucky, METRIC) < 0.04
    assert compare(lucky, METRIC)["a"].verdict == "better"
    # Two seeds only, whose luck is bad: they are not compared with the third of the others.
    two = compare([*lucky, point("c", 1.0, 1.5)], METRIC)["c"]
    assert two.ratio == pytest.approx(1, abs=0.03)
    assert two.verdict == ""


@pytest.mark.parametrize(("count", "seeds"), [(2, 3), (3, 2), (3, 3), (4, 2), (14, 3), (26, 2), (26, 5)])
def test_intervals_hold_the_truth_as_often_as_they_say(count: int, seeds: int) -> None:
    """Points whose seeds have a common luck and noise of their own; of many, one in four is ten times as wild."""
    random, held = np.random.default_rng(0), {False: [], True: []}
    for _ in range(3000 // count):
        truth, luck = random.uniform(-0.5, 0.5, count), random.normal(0, 0.1, seeds)
        wild = (np.arange(count) % 4 == 3) & (count > 10)
        noise = random.normal(0, 1, (count, seeds)) * np.where(wild, 0.3, 0.03)[:, None]
        values = np.exp(truth[:, None] + luck + noise)
        found = compare([point(str(i), *map(float, row)) for i, row in enumerate(values)], METRIC)
        for i in range(1, count):
            held[bool(wild[i])].append(found[str(i)].low <= np.exp(truth[i] - truth[0]) <= found[str(i)].high)
    assert 0.92 <= np.mean(held[False]) <= 0.985
    # That a point is wild has to be seen in its seeds, and two may agree by chance.
    assert not held[True] or np.mean(held[True]) >= (0.75 if seeds == 2 else 0.87)


def test_more_seeds_never_say_less() -> None:
    """One run of a third seed does not hide what two seeds of all points have said."""
    random = np.random.default_rng(1)
    values = np.exp(random.normal(0, 0.2, 3) + random.normal(0, 0.03, (12, 3)))
    two = [point(str(i), *map(float, row[:2])) for i, row in enumerate(values)]
    three = [point(str(0), *map(float, values[0])), *two[1:]]
    assert noise(three, METRIC) == pytest.approx(noise(two, METRIC), rel=0.15)
    assert compare(three, METRIC)["5"].ratio == pytest.approx(compare(two, METRIC)["5"].ratio, rel=0.03)


def test_quantiles_are_those_of_student() -> None:
    assert [round(student(degrees), 2) for degrees in (1, 2, 4, 10, 50)] == [12.71, 4.30, 2.77, 2.23, 2.01]
    assert student(3) == pytest.approx(3.182, rel=0.01)


def test_what_is_no_number_is_in_no_comparison() -> None:
    found = compare([point("a", 1.0, 1.1), point("b", math.nan), point("c", math.inf, 1.5, math.nan)], METRIC)
    assert list(found) == ["a", "c"]
    assert found["c"].mean == 1.5
    one = compare([point("a", 1.0), point("b", 2.0)], METRIC)["b"]
    assert (one.ratio, one.verdict) == (pytest.approx(2), "")
    assert math.isnan(one.low)


def test_a_page_tells_what_cannot_be_compared(tmp_path: Path) -> None:
    """One seed; and a first row that has no distance to be compared with."""
    first = {"gradients": 15, "gradient_norm": None}
    runs = [{**first, **point("a", 1.0)}, {**first, **point("b", 2.0)}, {**first, **point("c", failed=1)}]
    for each in runs:
        each["runs"] = [{"seconds": 1.0, "rollbacks": 0, "error": None, **run} for run in each["runs"]]
    figures = {"sweep": "mine", "command": "c", "date": "d", "versions": "v", "machine": "m", "planned": 3, "floor": {}}
    figures |= {"image": [1, 8, 8], "steps": 1, "batch_size": 1, "samples": 1}
    for name, points in {"one": runs, "none": runs[::-1], "single": runs[:1]}.items():
        draw_ratios({**figures, "points": points}, tmp_path / f"{name}.png")
        write({**figures, "points": points}, tmp_path / f"{name}.md")
    one, none, single = ((tmp_path / f"{name}.md").read_text() for name in ("one", "none", "single"))
    assert "| b | 1 | 2 | 2.00 |" in one
    assert "nan" not in one + none
    assert "no ratios" in none
    assert "| c | 0 | \u2013 | \u2013 | failed |" in none
    assert (tmp_path / "one.png").is_file()
    assert not (tmp_path / "none.png").exists()
    assert "There are no ratios: it is one row." in single
    assert not (tmp_path / "single.png").exists()
    assert "single.png" not in single


def test_an_error_ends_the_processes_that_wait() -> None:
    begin = time.perf_counter()
    with pytest.raises(ZeroDivisionError):
        list(in_processes(1, operator.call, [(divmod, 1, 0), *[(time.sleep, 1.0)] * 40]))
    # Forty, one after the other, take longer.
    assert time.perf_counter() - begin < 20


def test_a_point_that_fails_does_not_hide_the_others() -> None:
    """One wild point leaves the noise of the others; one without a finished run is in no comparison."""
    points = [point("base", 1.0, 1.1, 1.21), *(point(f"p{n}", 2.0, 2.2, 2.42) for n in range(3))]
    calm = noise(points, METRIC)
    wild = [*points, point("wild", 1.0, 500.0, 1.2), point("gone", failed=3)]
    assert noise(wild, METRIC) == pytest.approx(calm, rel=1e-3)
    found = compare(wild, METRIC)
    assert found["p0"].verdict == "worse"
    # Its own spread counts for the wild one, and those that are left of a point say nothing good of it.
    scattered = compare([*points, point("wild", 0.4, 1.3, 1.6), point("left", 0.5, 0.5, failed=1)], METRIC)
    assert scattered["wild"].ratio < 0.95
    assert scattered["wild"].verdict == scattered["left"].verdict == ""
    assert scattered["left"].high < 1
    one = compare([point("a", 1.0), point("b", 2.0)], METRIC)["b"]
    assert (one.ratio, one.verdict) == (pytest.approx(2), "")
    assert "gone" not in found


def test_features_decide_where_there_are_any() -> None:
    runs = [{"metrics": {METRIC: 1.0, "kid[net]": 2.0, "frechet_distance[net]": 3.0}}]
    assert main_metric({"points": [{"runs": runs}]}) == "kid[net]"
    assert main_metric({"points": [point("a", 1.0)]}) == METRIC


@pytest.mark.slow
def test_an_experiment_from_its_sweep_to_its_page(tmp_path: Path) -> None:
    """Real runs, one of which fails; the page keeps its prose, and is written again without training."""
    write_recipe(tmp_path / "tiny.toml", tiny_table(write_shards(tmp_path / "shards"), train__steps=3))
    sweep = tmp_path / "mine.toml"
    sweep.write_text(
        'recipe = "tiny.toml"\nseeds = [0, 1]\n[[points]]\nname = "recipe"\n'
        '[[points]]\nname = "sampler: large"\nsampler.step_size = 1.0\n'
        '[[points]]\nname = "sampler: absurd"\nsampler.step_size = 1e30\nwatchdog.mode = "off"\n'
        "[evaluate]\ncount = 8\nfloor = true\n"
        'metrics = ["pixel_frechet_distance", "pixel_std_ratio"]\n'
    )
    out = tmp_path / "pages"
    out.mkdir()
    (out / "mine.md").write_text("# By hand\n\n<!-- measured -->\n<!-- to here -->\n\nThe end.\n")
    words = ["-m", "benchmarks.results", str(sweep), "--folder", str(tmp_path / "runs"), "--out", str(out)]
    ran = subprocess.run(
        [sys.executable, *words, "--set", "train.steps=4", "--set", "train.keep_checkpoints=4"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    figures = json.loads((out / "mine.json").read_text())
    assert [p["name"] for p in figures["points"]] == ["recipe", "sampler: large", "sampler: absurd"]
    assert figures["steps"] == 4
    assert set(figures["floor"]) == {"pixel_frechet_distance", "pixel_std_ratio"}
    assert {run["state"] for p in figures["points"][:2] for run in p["runs"]} == {"done"}
    assert all(0 < p["gradient_norm"]["mean"] < p["gradient_norm"]["largest"] for p in figures["points"][:2])
    assert all(run["seconds"] > 0 for p in figures["points"] for run in p["runs"])
    page = (out / "mine.md").read_text()
    assert page.startswith("# By hand\n")
    assert page.endswith("The end.\n")
    changes = "--set train.steps=4 --set train.keep_checkpoints=4"
    assert f"`python -m benchmarks.results mine --jobs 1 --threads 1 {changes}`" in page
    assert " 6 of 6 runs, " in page
    assert "### Sampler" in page
    assert "| large |" in page
    assert {run["state"] for run in figures["points"][2]["runs"]} == {"failed"}
    assert "| absurd | 0 | \u2013 | \u2013 | failed |" in page
    places = figures["points"][0]["runs"][0]["course"]
    assert [(place["step"], place["images"]) for place in places] == [(2, 16), (4, 32)]
    assert places[1]["metrics"] == pytest.approx(figures["points"][0]["runs"][0]["metrics"])
    assert places[0]["metrics"] != places[1]["metrics"]
    assert "| step | 2 | 4 | images seen | minutes |" in page
    for picture in ("mine.png", "mine_samples.png", "mine_course.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    # All pages, beside the figures of another script.
    (out / "damage.json").write_text('{"rows": {}}')
    command = [sys.executable, "-m", "benchmarks.results", "--out", str(out), "--page"]
    again = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (out / "mine.md").read_text() == page


def test_contestants_differ_in_what_their_names_say() -> None:
    """Whatever is set beside them; a learning rate that falls is one that stays."""
    rate, sampler = "optimizer.learning_rate.start", "sampler.auto_ratio"
    changes = {rate: 1e-2, sampler: 0.9, "regularizers.wgan_lp.weight": 5.0, "buffer.size": 128}
    recipe, reference, literal = (ebmkit.check("digits", values) for values in contestants("digits", changes).values())
    assert recipe.to_toml() == reference.to_toml()
    assert [found.regularizers[0].options.weight for found in (recipe, literal)] == [5, 200]
    assert [found.sampler.options.auto_ratio for found in (recipe, literal)] == [0.9, 0.55]
    assert [found.optimizer.learning_rate(0.9) for found in (recipe, literal)] == [1e-2, 2e-4]
    assert recipe.buffer.options.size == literal.buffer.options.size == 128
    assert recipe.sampler.options.steps == literal.sampler.options.steps
    with pytest.raises(BadInput, match=r"cannot be compared: .* not wgan_lp, energy_l2"):
        contestants("digits", {"regularizers": [{"use": "wgan_lp"}, {"use": "energy_l2"}]})


@pytest.mark.slow
def test_runs_of_equal_minutes(tmp_path: Path) -> None:
    """ebmkit, the plain reference and the literal reading, each for three seconds, and measured on the way."""
    write_recipe(tmp_path / "tiny.toml", tiny_table(write_shards(tmp_path / "shards")))
    words = ["-m", "benchmarks.results.minutes", str(tmp_path / "tiny.toml"), "--minutes", "0.05", "--marks", "2"]
    words += ["--seeds", "0", "1", "--count", "8", "--folder", str(tmp_path / "runs"), "--out", str(tmp_path)]
    runs = tmp_path / "runs" / "minutes_tiny"
    # As a stopped call leaves it.
    (runs / "recipe_0" / "run").mkdir(parents=True)
    ran = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    figures = json.loads((tmp_path / "minutes_tiny.json").read_text())
    for point in figures["points"]:
        for run in point["runs"]:
            folder = runs / f"{point['name']}_{run['seed']}"
            # The reference is another loop, and has no run folder of ebmkit's.
            assert (folder / "run" / "recipe.toml").is_file() == (point["name"] != REFERENCE)
            assert ebmkit.load(folder / "0.05" / "model.safetensors").recipe.seed == run["seed"]
            assert [place["mark"] for place in run["course"]] == [0.025, 0.05]
            assert all(60 * place["mark"] <= place["seconds"] < 60 * place["mark"] + 1 for place in run["course"])
            assert run["course"][0]["step"] < run["course"][1]["step"]
            assert run["metrics"] == run["course"][-1]["metrics"]
    page = (tmp_path / "minutes_tiny.md").read_text()
    assert "6 of 6 runs" in page
    assert "0.05 minutes of training with steps of batch 8" in page
    assert "| minutes | 0.025 | 0.05 | images seen | minutes |" in page
    # Nothing is trained again, other samples are measured, and other values are no run of these.
    kept = (runs / "recipe_0" / "places.json").stat().st_mtime_ns
    words[words.index("--count") + 1] = "9"
    again = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (runs / "recipe_0" / "places.json").stat().st_mtime_ns == kept
    assert json.loads((tmp_path / "minutes_tiny.json").read_text())["points"] != figures["points"]
    words += ["--set", "energy.channels=16"]
    other = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert other.returncode == 2
    assert "has a run of other values" in other.stderr


def test_a_rule_takes_the_reach_where_it_is_met() -> None:
    assert crossing([1.0, 1.1, 1.3], [-2.0, -1.0, 3.0], 0.0) == pytest.approx(1.15)
    assert crossing([0.9, 1.0, 1.1, 1.2], [1.0, -1.0, 1.0, -1.0], 0.0) == pytest.approx(1.05)
    assert crossing([1.0, 1.1], [0.5, 1.0], 1.0) == pytest.approx(1.1)
    assert crossing([1.0, 1.1, 1.3], [-1.0, math.nan, 1.0], 0.0) == pytest.approx(1.15)
    assert crossing([1.0, 1.1, 1.3], [0.5, 0.2, 3.0], 0.0) == "above from 1 on"
    assert crossing([1.0, 1.1], [0.5, 0.9], 1.0) == "not reached by 1.1"
    assert crossing([1.0, 1.1], [0.5, -0.9], 0.0) == "only falls to it"


@pytest.mark.slow
def test_models_are_drawn_with_other_step_sizes(tmp_path: Path) -> None:
    """What a rule has taken from samples of one seed is measured on those of another."""
    shards = write_shards(tmp_path / "shards")
    table = tiny_table(shards, train__steps=3, sampler__step_size="auto", sampler__auto_ratio=1.3)
    folders = [tmp_path / name / f"run_seed-{seed}" for name, seed in (("one", 0), ("one", 1), ("two", 0))]
    for seed, folder in enumerate(folders):
        ebmkit.train(write_recipe(tmp_path / "tiny.toml", table | {"seed": seed}), run_dir=folder)
    words = ["-m", "benchmarks.results.calibration", "mine", *map(str, folders)]
    words += ["--reaches", "0.3", "1.3", "8", "--decide", "8", "--count", "16", "--jobs", "2", "--out", str(tmp_path)]
    ran = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    models = json.loads((tmp_path / "mine.json").read_text())["models"]
    assert [model["model"] for model in models] == ["one/run_seed-0", "one/run_seed-1", "two/run_seed-0"]
    for folder, found in zip(folders, models, strict=True):
        model = ebmkit.load(folder / "model.safetensors")
        real = from_uint8(all_images(model.recipe.data))
        for row in found["rows"]:
            overrides = {"sampler.auto_ratio": row["reach"]}
            samples = from_uint8(to_uint8(model.sample(8, 1, overrides=overrides)))
            assert row["contrast"] == pytest.approx(pixel_std_ratio(samples, real))
            energies = model(real)
            gap = (energies.mean() - model(samples).mean()) / energies.std()
            assert row["gap"] == pytest.approx(float(gap), rel=1e-3, abs=1e-3)
        # All of the data, so that the rule's are the same images whatever their order.
        assert len(real) < 1000
        for rule, reach in found["taken"].items():
            assert isinstance(reach, float) == (rule in found["metrics"])
            if isinstance(reach, float):
                asked = {"count": 16, "metrics": ["pixel_std_ratio"], "overrides": {"sampler.auto_ratio": reach}}
                judged = found["metrics"][rule]["pixel_std_ratio"]
                assert judged == pytest.approx(ebmkit.evaluate(model, **asked)["pixel_std_ratio"])
        assert found["taken"]["as trained"] == 1.3
    assert any(len(model["metrics"]) > 1 for model in models), [model["rows"] for model in models]
    page = (tmp_path / "mine.md").read_text()
    assert "### one/run\n" in page
    assert "### two/run\n" in page
    assert "| as trained | 1.3, 1.3 |" in page
    assert "one/run_seed-1 two/run_seed-0 --reaches 0.3 1.3 8 --decide 8 --count 16 --jobs 2`" in page
    assert str(tmp_path) not in page
    write_recipe(tmp_path / "fixed.toml", tiny_table(shards, train__steps=3, sampler__step_size=0.5))
    ebmkit.train(tmp_path / "fixed.toml", run_dir=tmp_path / "fixed")
    words[3:6] = [str(tmp_path / "fixed")]
    refused = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert refused.returncode == 2
    assert 'its sampler.step_size is not "auto"' in refused.stderr


def test_a_sweep_of_the_repository_is_named_by_its_path(tmp_path: Path) -> None:
    shown = "benchmarks/results/trials/cifar16_trials.toml"
    assert named(str(ROOT / shown), "cifar16_trials") == shown
    assert named("digits_choices", "digits_choices") == "digits_choices"
    (tmp_path / "mine.toml").write_text("")
    assert named(str(tmp_path / "mine.toml"), "mine") == "mine"


def test_a_contestant_has_the_threads_of_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def train(*arguments: object) -> list[Any]:
        seen.append(torch.get_num_threads())
        raise BadInput("the samples are not finite")

    monkeypatch.setattr(contest, "_ebmkit", train)
    monkeypatch.setattr(contest, "_reference", train)
    before, wanted = torch.get_num_threads(), torch.get_num_threads() + 1
    for name in (contest.RECIPE, REFERENCE):
        contest.compete("digits", name, {"train.threads": wanted}, tmp_path / name, {"minutes": 1, "marks": 1})
        told = json.loads((tmp_path / name / "places.json").read_text())
        assert (told["places"], told["error"]) == ([], "the samples are not finite")
    assert seen == [wanted, wanted]
    assert torch.get_num_threads() == before
