"""The Python interface: what the command line does, in a few lines."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import ebmkit
from ebmkit.trainer import Outcome
from run_helpers import RECIPES, environment, run_cli, tiny_table, write_recipe, write_shards


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    return write_recipe(folder / "tiny.toml", tiny_table(write_shards(folder / "shards"), train__steps=3))


@pytest.fixture(scope="module")
def outcome(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return ebmkit.train(recipe, overrides={"train.batch_size": 4}, run_dir=tmp_path_factory.mktemp("run") / "run")


def test_train_load_and_sample(outcome: Outcome) -> None:
    assert (outcome.step, outcome.finished) == (3, True)
    model = ebmkit.load(outcome.folder / "model.safetensors")
    assert isinstance(model, ebmkit.Model)
    assert model.metadata["images_seen"] == "12"
    images = model.sample(64, seed=0)
    assert images.shape == (64, 1, 8, 8)
    assert torch.equal(images, model.sample(64, seed=0))
    assert model(images).shape == (64,)


def test_the_digits_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ebmkit.train("recipes/digits.toml", overrides={...})`, with the embedded data."""
    monkeypatch.setenv("EBMKIT_CACHE", str(tmp_path / "cache"))
    small = {"train.steps": 2, "train.batch_size": 8, "train.sample_every": 2, "train.sample_count": 4}
    folder = ebmkit.train(RECIPES / "digits.toml", overrides=small, run_dir=tmp_path / "run").folder
    assert ebmkit.load(folder / "model.safetensors").sample(2, seed=0).shape == (2, 1, 8, 8)
    assert [path.name for path in (folder / "samples").iterdir()] == ["step-000000002.png"]
    assert list((tmp_path / "cache").iterdir()), "shards are made in the cache folder"


def test_resume_and_refusal(recipe: Path, tmp_path: Path) -> None:
    ebmkit.train(recipe, run_dir=tmp_path / "run")
    with pytest.raises(ebmkit.BadInput, match="--resume"):
        ebmkit.train(recipe, run_dir=tmp_path / "run")
    more = ebmkit.train(recipe, {"train.steps": 5}, tmp_path / "run", resume=True)
    assert (more.step, more.finished) == (5, True)


def test_training_in_a_thread_leaves_signal_handlers_alone(recipe: Path, tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(ebmkit.train(recipe, run_dir=tmp_path / "run")))
    thread.start()
    thread.join(60)
    assert outcomes[0].finished


def test_a_view_hears_everything(recipe: Path, tmp_path: Path) -> None:
    class Watching:
        def __init__(self) -> None:
            self.events: list[object] = []

        def begin(self, first: int, steps: int) -> None:
            self.events.append(("begin", first, steps))

        def step(self, step: int) -> None:
            self.events.append(step)

        def metrics(self, row: object) -> None:
            self.events.append("metrics")

        def say(self, message: str) -> None:
            self.events.append(message)

        def loading(self, done: int, total: int | None) -> None:
            self.events.append(("loading", done))

    view = Watching()
    ebmkit.train(recipe, {"sampler.step_size": 0.01}, tmp_path / "run", view=view)
    warning, *rest = view.events
    assert "reachability" in str(warning)
    assert ("loading", 48) in rest
    assert rest[rest.index(("begin", 0, 3)) :] == [("begin", 0, 3), 1, "metrics", 2, "metrics", 3, "metrics"]


def test_errors_are_of_one_family(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ebmkit.RecipeError) as caught:
        ebmkit.train(recipe, {"train.step": 1, "sampler.steps": 0}, tmp_path / "run")
    assert sorted(problem.path for problem in caught.value.problems) == ["sampler.steps", "train.step"]
    for kind in (ebmkit.RecipeError, ebmkit.PluginMissing, ebmkit.BadData, ebmkit.DataError, ebmkit.TrainingFailed):
        assert issubclass(kind, ebmkit.EbmkitError)
    with pytest.raises(ebmkit.PluginMissing, match="did you mean 'unet'"):
        ebmkit.describe("energy", "unett")


def test_check_describe_list_and_schema_are_those_of_the_command_line(recipe: Path) -> None:
    import json
    from dataclasses import asdict

    warnings: list[str] = []
    bound = ebmkit.check(recipe, {"sampler.steps": 7, "sampler.step_size": 0.01}, warnings.append)
    assert bound.sampler.options.steps == 7
    assert len(warnings) == 1
    found, broken = ebmkit.list_plugins()
    listed = json.loads(run_cli("list-plugins", "--json").out)
    assert [item.name for item in found] == [row["name"] for row in listed["components"]]
    assert len(broken) == len(listed["broken"])
    description = ebmkit.describe("sampler", "langevin")
    assert json.loads(json.dumps(asdict(description))) == json.loads(
        run_cli("describe", "sampler", "langevin", "--json").out
    )
    assert ebmkit.schema() == json.loads(run_cli("schema").out)


def test_samples_and_energies_are_those_of_the_command_line(outcome: Outcome, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = outcome.folder / "model.safetensors"
    words = ["--count", 5, "--seed", 2, "--out", tmp_path / "x.safetensors", "--set", "sampler.steps=3"]
    assert run_cli("sample", path, *words).code == 0
    images = ebmkit.load(path).sample(5, seed=2, overrides={"sampler.steps": 3})
    assert torch.equal(load_file(tmp_path / "x.safetensors")["images"], images)


def test_every_public_name_is_there_and_importing_needs_no_torch(tmp_path: Path) -> None:
    assert all(getattr(ebmkit, name) is not None for name in ebmkit.__all__)
    assert set(ebmkit.__all__) <= set(dir(ebmkit))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ebmkit.nothing
    code = "import sys, ebmkit; ebmkit.check('digits'); ebmkit.list_plugins(); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), check=False)
    assert done.returncode == 0


def test_evaluate_takes_a_model_or_its_file(outcome: Outcome) -> None:
    by_file = ebmkit.evaluate(outcome.model, count=8)
    assert by_file == ebmkit.evaluate(ebmkit.load(outcome.model), count=8)
    assert by_file["samples"] == 8
    assert by_file["pixel_frechet_distance"] > 0


def test_save_images_writes_what_sample_writes(outcome: Outcome, tmp_path: Path) -> None:
    images = ebmkit.load(outcome.model).sample(3, seed=0)
    ebmkit.save_images(images, tmp_path / "images.npz")
    assert np.load(tmp_path / "images.npz")["images"].shape == (3, 8, 8, 1)
    ebmkit.save_images(images, tmp_path / "folder")
    assert len(list((tmp_path / "folder").glob("*.png"))) == 3
    with pytest.raises(ebmkit.BadInput, match="not overwritten"):
        ebmkit.save_images(images, tmp_path / "images.npz")


def test_plugins_are_made_and_checked(tmp_path: Path) -> None:
    folder = ebmkit.new_plugin("schedule", "halving", tmp_path / "mine")
    assert folder == tmp_path / "mine"
    assert (folder / "pyproject.toml").is_file()
    with pytest.raises(ebmkit.BadInput, match="never overwritten"):
        ebmkit.new_plugin("schedule", "halving", tmp_path / "mine")
    findings = ebmkit.check_plugin("ebmkit-contrastive")
    assert {finding.subject for finding in findings} == {"objective contrastive_divergence"}
    assert {finding.outcome for finding in findings} == {"passed"}
    with pytest.raises(ebmkit.BadInput, match="no distribution, plugin or module"):
        ebmkit.check_plugin("ebmkit-nothing")
