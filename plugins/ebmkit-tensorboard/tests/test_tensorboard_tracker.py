"""What TensorBoard shows of real runs, read back by TensorBoard's own reader."""

from __future__ import annotations

import io
import json
import shutil
import sys
import threading
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ebmkit_tensorboard.pictures import BINS, grid, histograms
from ebmkit_tensorboard.tracker import TensorBoard
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as ServerAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from ebmkit import Context, RunInfo, Tracker, hookimpl
from ebmkit.errors import HookFailed
from ebmkit.lifecycle import ERROR_LOG
from ebmkit.recipe import Part
from ebmkit.run_folder import RunFolder
from ebmkit.testing import TrackerContract
from run_helpers import (
    Command,
    differences,
    last_checkpoint,
    new_trainer,
    run_cli,
    tiny_recipe,
    tiny_table,
    wait_until,
    write_recipe,
    write_shards,
)

USE = [{"use": "tensorboard"}]
STEPS, EVERY, SAMPLES = 60, 30, 20
ALL = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
ENERGIES = ["energy/data", "energy/noise", "energy/samples"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


def shown(run: Path, folder: str = "tensorboard", purged: bool = True) -> EventAccumulator:
    """Everything that TensorBoard shows of a run."""
    return EventAccumulator(str(run / folder), ALL, purge_orphaned_data=purged).Reload()


def scalars(reader: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def logged(run: Path) -> dict[str, list[tuple[int, float]]]:
    """metrics.jsonl as TensorBoard should show it: float32, each metric under its tag."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row: dict[str, float] = json.loads(line)
        step = int(row.pop("step"))
        for name, value in row.items():
            found.setdefault(name if "/" in name else f"train/{name}", []).append((step, float(np.float32(value))))
    return found


def texts(run: Path) -> list[tuple[int, dict[str, Any]]]:
    """The recipes that are shown, each with its step, read as TensorBoard's server reads them."""
    reader = ServerAccumulator(str(run / "tensorboard"), ALL).Reload()
    found = []
    for event in reader.Tensors("recipe/text_summary"):
        text = event.tensor_proto.string_val[0].decode()
        assert text.startswith("```toml\n")
        assert text.endswith("\n```")
        found.append((event.step, tomllib.loads(text.removeprefix("```toml\n").removesuffix("```"))))
    return found


def recipe_of(run: Path) -> dict[str, Any]:
    return tomllib.loads((run / "recipe.toml").read_text())


def threads() -> list[str]:
    """The threads of writers that are not closed."""
    return [name for name in (type(t).__name__ for t in threading.enumerate()) if "AsyncWriter" in name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: str) -> Path:
    """A run of five steps, with a sample grid at the second and the fourth."""
    run = tmp_path_factory.mktemp("whole") / "run"
    changes = {"train__steps": 5, "train__sample_every": 2, "train__sample_count": 6, "train__log_every": 2}
    new_trainer(run, tiny_recipe(shards, trackers=USE, **changes)).train()
    assert not (run / ERROR_LOG).exists()
    return run


def test_scalars_are_the_log(whole: Path) -> None:
    found = scalars(shown(whole))
    assert found == logged(whole)
    assert [step for step, _ in found["train/loss"]] == [2, 4, 5]
    assert {"wgan_lp/penalty", "train/learning_rate", "train/images_per_second"} <= found.keys()
    assert "train/step" not in found


def test_the_picture_is_the_sample_grid(whole: Path) -> None:
    reader = shown(whole)
    assert reader.Tags()["images"] == ["samples"]
    assert [event.step for event in reader.Images("samples")] == [2, 4]
    for event in reader.Images("samples"):
        picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        right = np.asarray(Image.open(whole / "samples" / f"step-{event.step:09d}.png").convert("RGB"))
        # 3 columns and 2 rows of 8 x 8 pixels, six times enlarged, with 2 pixels between them.
        assert picture.shape == (2 * 50 + 2, 3 * 50 + 2, 3)
        assert (event.width, event.height) == (152, 102)
        assert np.array_equal(picture, right)


def test_histograms_hold_every_energy_in_the_same_bins(whole: Path) -> None:
    reader = shown(whole)
    assert sorted(reader.Tags()["histograms"]) == ENERGIES
    events = [reader.Histograms(tag) for tag in ENERGIES]
    assert [[event.step for event in each] for each in events] == [[2, 4]] * 3
    for of_step in zip(*events, strict=True):
        values = [event.histogram_value for event in of_step]
        assert [value.num for value in values] == [6, 6, 6]
        assert [sum(value.bucket) for value in values] == [6, 6, 6]
        assert all(value.min < value.max for value in values)
        low, high = min(value.min for value in values), max(value.max for value in values)
        edges = np.linspace(low, high, BINS + 1)
        for value in values:
            places = np.searchsorted(edges, np.asarray(value.bucket_limit) - 1e-6 * (high - low))
            assert np.allclose(edges[places], value.bucket_limit)


def test_the_energies_are_those_of_the_hook(tmp_path: Path) -> None:
    # Bins of (8.5 - -4) / 50 = 1/4, beginning at -4; the highest energy belongs to the last one.
    energies = {
        "samples": torch.tensor([1.125, 2.125, 2.125, 8.5]),
        "data": torch.tensor([-4.0]),
        # A square that float32 does not hold.
        "noise": torch.full((3,), 4 + 2.0**-21),
    }
    right = {"samples": {1.25: 1, 2.25: 2, 8.5: 1}, "data": {-3.75: 1}, "noise": {4.25: 3}}
    write(tmp_path, TensorBoard.Options(), energies=energies)
    reader = shown(tmp_path)
    for name, filled in right.items():
        (event,) = reader.Histograms(f"energy/{name}")
        value = event.histogram_value
        assert {end: count for end, count in zip(value.bucket_limit, value.bucket, strict=True) if count} == filled
        numbers = energies[name].double()
        assert (value.min, value.max) == (numbers.min(), numbers.max())
        assert (value.num, value.sum, value.sum_squares) == (len(numbers), numbers.sum(), numbers.square().sum())


def test_the_recipe_is_there_as_text(whole: Path) -> None:
    assert texts(whole) == [(1, recipe_of(whole))]


def test_the_run_is_the_same_without_and_leaves_nothing_open(tmp_path: Path, shards: str, whole: Path) -> None:
    changes = {"train__steps": 5, "train__sample_every": 2, "train__sample_count": 6, "train__log_every": 2}
    new_trainer(tmp_path / "run", tiny_recipe(shards, **changes)).train()
    assert not list(differences(last_checkpoint(tmp_path / "run"), last_checkpoint(whole)))
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert threads() == []


# --- Kills, resumes, exceptions ---------------------------------------------------------------------------------------


def without_times(found: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    measured = ("train/images_per_second", "train/seconds", "train/peak_memory_gib")
    return {tag: values for tag, values in found.items() if tag not in measured}


def pictures(reader: EventAccumulator) -> list[tuple[int, bytes]]:
    return [(event.step, event.encoded_image_string) for event in reader.Images("samples")]


def energies(reader: EventAccumulator) -> dict[str, list[Any]]:
    return {tag: [(e.step, e.histogram_value) for e in reader.Histograms(tag)] for tag in ENERGIES}


def test_kill_minus_9_and_resume_shows_an_undisturbed_run(tmp_path: Path, shards: str) -> None:
    """With a data worker: it is a fork of a process in which the writer has a thread."""
    changes = {"train__steps": STEPS, "train__checkpoint_every": EVERY, "train__sample_every": SAMPLES}
    table = tiny_table(shards, trackers=USE, sampler__steps=1, data__cache="off", data__workers=1, **changes)
    words = ["train", write_recipe(tmp_path / "tiny.toml", table), "--run-dir"]
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "killed"
    done = Command(*words, undisturbed, cwd=tmp_path).wait()
    assert (done.code, done.err) == (0, "")

    command = Command(*words, run, cwd=tmp_path)
    log = run / "metrics.jsonl"
    wait_until(lambda: log.is_file() and log.read_bytes().count(b"\n") > EVERY + 3)
    command.kill()
    command.wait()
    ((saved, _),) = RunFolder(run).complete_checkpoints()
    assert saved == EVERY
    # Not one number before the checkpoint was lost, though the writer was never closed.
    assert [step for step, _ in scalars(shown(run))["train/loss"]][:EVERY] == list(range(1, EVERY + 1))
    (killed,) = (run / "tensorboard").glob("events.*")
    with killed.open("ab") as file:
        # A kill in the middle of a record.
        file.write(killed.read_bytes()[:50])
    # Files are read in the order of their names, which begin with the second of their making.
    wait_until(lambda: int(time.time()) > int(killed.name.split(".")[3]))

    done = Command(*words, run, "--resume", cwd=tmp_path).wait()
    assert (done.code, done.err) == (0, "")
    assert f"going on from step {EVERY}" in done.out
    reader, right = shown(run), shown(undisturbed)
    assert scalars(reader) == logged(run)
    assert without_times(scalars(reader)) == without_times(scalars(right))
    assert [step for step, _ in scalars(reader)["train/loss"]] == list(range(1, STEPS + 1))
    assert pictures(reader) == pictures(right)
    assert [step for step, _ in pictures(reader)] == list(range(SAMPLES, STEPS + 1, SAMPLES))
    assert energies(reader) == energies(right)
    assert texts(run) == [(1, recipe_of(run)), (EVERY + 1, recipe_of(run))]
    # The steps that were done twice are in the files, and would be shown twice without the mark of the resumed run.
    assert len(scalars(shown(run, purged=False))["train/loss"]) > STEPS


def test_a_changed_recipe_is_shown_where_it_begins(tmp_path: Path, shards: str) -> None:
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path / "tiny.toml", tiny_table(shards, trackers=USE, train__steps=2))
    assert run_cli("train", recipe, "--run-dir", run).code == 0
    more = ["--set", "train.steps=4", "--set", "regularizers.wgan_lp.weight=30.0"]
    assert run_cli("train", recipe, "--run-dir", run, "--resume", *more).code == 0
    (first, one), (second, other) = texts(run)
    assert (first, second) == (1, 3)
    assert (one["regularizers"][0]["weight"], other["regularizers"][0]["weight"]) == (20.0, 30.0)
    assert scalars(shown(run)) == logged(run)


@pytest.mark.parametrize("hook", ["ebmkit_step_end", "ebmkit_samples_drawn"])
def test_what_a_hook_was_told_is_written_when_it_returns(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint and a kill may come next, and the resumed run does not tell it again."""
    tracker, write_record = new_tracker(), RecordWriter.write

    def slowly(self: RecordWriter, data: bytes) -> None:
        time.sleep(0.05)
        write_record(self, data)

    monkeypatch.setattr(RecordWriter, "write", slowly)
    tracker.ebmkit_train_begin(RunInfo(tmp_path, {}), 0)
    if hook == "ebmkit_step_end":
        tracker.ebmkit_step_end(1, {"step": 1, "loss": 0.5})
        assert scalars(shown(tmp_path)) == {"train/loss": [(1, 0.5)]}
    else:
        tracker.ebmkit_samples_drawn(1, torch.zeros(2, 1, 8, 8), {"data": torch.ones(2)})
        assert shown(tmp_path).Tags()["histograms"] == ["energy/data"]
    tracker.ebmkit_train_end()


class Unbuildable(Tracker):
    """Cannot be built."""

    name = "unbuildable"

    def __init__(self, options: Any, context: Any) -> None:
        raise OSError("no server")

    @hookimpl
    def ebmkit_train_begin(self) -> None:
        """Never called."""


def test_an_exception_closes_the_writer(tmp_path: Path, shards: str) -> None:
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards, trackers=USE))
    seen = []

    def stop() -> bool:
        seen.append(threads())
        if trainer.step == 2:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        trainer.train(stop)
    assert len(seen[0]) == 1
    assert threads() == []
    assert not (tmp_path / "run" / ERROR_LOG).exists()
    assert [step for step, _ in scalars(shown(tmp_path / "run"))["train/loss"]] == [1, 2]


def test_an_exception_before_training_begins_is_no_other_error(tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(shards, trackers=USE, train__hook_errors="fatal")
    recipe = replace(recipe, trackers=(*recipe.trackers, Part("tracker", Unbuildable, Unbuildable.Options())))
    with pytest.raises(HookFailed, match="no server"):
        new_trainer(tmp_path / "run", recipe).train()
    assert "tracker 'tensorboard'" not in (tmp_path / "run" / ERROR_LOG).read_text()


# --- Evaluations -----------------------------------------------------------------------------------------------------


def test_evaluations_are_scalars(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    before = scalars(shown(run))
    told = [
        json.loads(run_cli("evaluate", run / "model.safetensors", "--count", 4, "--seed", seed, "--json").out)
        for seed in (0, 1)
    ]
    found = scalars(shown(run, "tensorboard/evaluation"))
    assert found == {f"evaluation/{key}": [(5, float(np.float32(result[key]))) for result in told] for key in told[0]}
    assert "evaluation/pixel_frechet_distance" in found
    assert scalars(shown(run)) == before
    assert not (run / ERROR_LOG).exists()


def test_only_numbers_of_an_evaluation_are_shown(tmp_path: Path) -> None:
    results = {"distance": 1.5, "count": 3, "name": "x", "good": True, "parts": [1.0], "none": None}
    new_tracker().ebmkit_evaluation(RunInfo(tmp_path, {}), 7, results)
    found = scalars(shown(tmp_path, "tensorboard/evaluation"))
    assert found == {"evaluation/distance": [(7, 1.5)], "evaluation/count": [(7, 3.0)]}
    assert threads() == []


def test_an_evaluation_meanwhile_does_not_turn_readers_away_from_training(tmp_path: Path) -> None:
    """TensorBoard follows one file of a folder, and leaves it for good as soon as there is a newer one."""
    run, tracker = RunInfo(tmp_path, {}), new_tracker()
    tracker.ebmkit_train_begin(run, 0)
    tracker.ebmkit_step_end(1, {"step": 1, "loss": 1.0})
    reader = shown(tmp_path)
    new_tracker().ebmkit_evaluation(run, 1, {"distance": 1.5})
    reader.Reload()
    tracker.ebmkit_step_end(2, {"step": 2, "loss": 0.5})
    assert scalars(reader.Reload()) == {"train/loss": [(1, 1.0), (2, 0.5)]}
    tracker.ebmkit_train_end()


def test_evaluations_of_steps_that_come_again_are_kept(tmp_path: Path) -> None:
    run = RunInfo(tmp_path, {})
    for step in (4, 8):
        new_tracker().ebmkit_evaluation(run, step, {"distance": step / 2})
    time.sleep(1.0 - time.time() % 1.0)  # file names know seconds
    resumed = new_tracker()
    resumed.ebmkit_train_begin(run, 4)
    resumed.ebmkit_train_end()
    time.sleep(1.0 - time.time() % 1.0)
    # Also beside one of an earlier step, which comes later.
    new_tracker().ebmkit_evaluation(run, 6, {"distance": 3.0})
    found = scalars(shown(tmp_path, "tensorboard/evaluation"))
    assert found == {"evaluation/distance": [(4, 2.0), (8, 4.0), (6, 3.0)]}


# --- Options, pictures, the package -----------------------------------------------------------------------------------


def new_tracker(**options: Any) -> TensorBoard:
    return TensorBoard(TensorBoard.Options(**options), Context((1, 8, 8), 4))


def write(
    folder: Path,
    options: TensorBoard.Options,
    images: torch.Tensor | None = None,
    energies: dict[str, torch.Tensor] | None = None,
) -> None:
    """One sample grid, as the trainer would tell it."""
    tracker = TensorBoard(options, Context((1, 8, 8), 4))
    tracker.ebmkit_train_begin(RunInfo(folder, {}), 0)
    tracker.ebmkit_samples_drawn(1, torch.zeros(9, 1, 8, 8) if images is None else images, energies or {})
    tracker.ebmkit_train_end()


@pytest.mark.parametrize(("images", "size"), [(0, None), (1, (48, 48)), (5, (152, 102)), (1024, (152, 152))])
def test_images_are_as_many_as_the_option_says(images: int, size: tuple[int, int] | None, tmp_path: Path) -> None:
    write(tmp_path, TensorBoard.Options(images=images))
    reader = shown(tmp_path)
    found = [(e.width, e.height) for tag in reader.Tags()["images"] for e in reader.Images(tag)]
    assert found == ([size] if size else [])


def test_histograms_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, TensorBoard.Options(histograms=False), energies={"data": torch.ones(2)})
    assert shown(tmp_path).Tags()["histograms"] == []


@pytest.mark.parametrize("images", [-1, 1025])
def test_options_have_bounds(images: int) -> None:
    with pytest.raises(ValueError, match="images"):
        TensorBoard.Options(images=images)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_any_channels(channels: int) -> None:
    x = torch.zeros(2, channels, 100, 60)
    x[:, 0] = -1.0
    x[:, 0, :50] = 7.0
    picture = grid(x)
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 104, 126)
    assert picture[:, :2].eq(255).all()
    # 0 is the middle of [-1, 1]; 127.5 is rounded to the even number.
    other = (128, 128) if channels == 3 else (255, 0)
    assert picture[:, 10, 10].tolist() == [255, other[0], other[0]]
    assert picture[:, 90, 10].tolist() == [0, other[1], other[1]]


def test_energies_that_are_not_finite_are_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    arrays, edges = histograms({"a": torch.tensor([1.0, nan, 3.0, inf]), "b": torch.tensor([-inf]), "c": torch.ones(1)})
    assert {name: list(values) for name, values in arrays.items()} == {"a": [1.0, 3.0], "c": [1.0]}
    assert (len(edges), edges[0], edges[-1]) == (BINS + 1, 1.0, 3.0)
    assert histograms({"b": torch.tensor([nan])})[0] == {}
    half, _ = histograms({"h": torch.tensor([0.5], dtype=torch.bfloat16)})
    assert list(half["h"]) == [0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energies_that_hardly_differ_have_bins_between_them(dtype: torch.dtype) -> None:
    """Two neighbours of float32; then two of float64, which are one number here."""
    low = torch.tensor([1000.0], dtype=dtype)
    high = low.nextafter(torch.tensor([2000.0], dtype=dtype))
    assert low < high
    arrays, edges = histograms({"a": low, "b": high})
    assert len(np.unique(edges)) == BINS + 1
    assert [np.histogram(array, edges)[0].sum() for array in arrays.values()] == [1, 1]


NEEDS = "needs the package tensorboard: pip install 'ebmkit[tensorboard]'"


def test_a_missing_package_is_a_problem_of_the_recipe(
    tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "tiny.toml", tiny_table(shards, trackers=USE))
    assert run_cli("check", recipe).code == 0
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for words in (["check", recipe], ["train", recipe, "--run-dir", tmp_path / "run"]):
        refused = run_cli(*words)
        assert refused.code == 2
        assert NEEDS in " ".join(refused.err.split())
        assert "trackers" in refused.err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_that_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m ebmkit` in a run folder, where this tracker has made one."""
    assert TensorBoard.problems(TensorBoard.Options(), Context((1, 8, 8), 4)) == []
    (tmp_path / "tensorboard").mkdir()
    monkeypatch.delitem(sys.modules, "tensorboard")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert TensorBoard.problems(TensorBoard.Options(), Context((1, 8, 8), 4)) == [f"use: {NEEDS}"]


class TestTensorBoardContract(TrackerContract):
    component = TensorBoard


class TestTensorBoardOfGreyImagesContract(TrackerContract):
    component = TensorBoard
    options = {"images": 2, "histograms": False}
    image_shape = (1, 8, 8)
