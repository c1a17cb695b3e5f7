"""Lifecycle hooks in real runs: when they are called, with what, and what happens when one of them fails."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import ebmkit
from ebmkit import RunInfo, Tracker, hookimpl
from ebmkit.errors import HookFailed
from ebmkit.lifecycle import ERROR_LOG
from ebmkit.process_settings import SETTINGS, ProcessSettings, kept
from ebmkit.recipe import Part, Recipe
from ebmkit.run_folder import RunFolder
from run_helpers import (
    Result,
    contents,
    differences,
    last_checkpoint,
    metrics_of,
    new_trainer,
    run_cli,
    tiny_recipe,
    write_recipe,
    write_shards,
)
from run_helpers import tiny_table as table_of

Heard = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


def watched(recipe: Recipe, *trackers: type[Tracker]) -> Recipe:
    """The recipe with trackers of classes that no plugin provides."""
    return replace(recipe, trackers=tuple(Part("tracker", tracker, tracker.Options()) for tracker in trackers))


class Listener(Tracker):
    """Writes down what it hears."""

    name = "listener"
    heard: ClassVar[Heard] = []

    @hookimpl
    def ebmkit_train_begin(self, run: RunInfo, step: int) -> None:
        self.heard.append(("begin", step, run.folder.name, run.recipe["time_steps"]))

    @hookimpl
    def ebmkit_step_end(self, run: RunInfo, step: int, metrics: Mapping[str, float]) -> None:
        assert all(isinstance(value, int | float) for value in metrics.values())
        self.heard.append(("step", step, metrics["step"]))

    @hookimpl
    def ebmkit_samples_drawn(self, step: int, images: Tensor, energies: Mapping[str, Tensor], path: Path) -> None:
        assert path.is_file()
        self.heard.append(("samples", step, tuple(images.shape), {k: tuple(v.shape) for k, v in energies.items()}))

    @hookimpl
    def ebmkit_checkpoint(self, run: RunInfo, step: int, path: Path) -> None:
        assert (path / "state.safetensors").is_file()
        assert (run.folder / "model.safetensors").is_file()
        self.heard.append(("checkpoint", step, path.name))

    @hookimpl
    def ebmkit_train_end(self, step: int, finished: bool) -> None:
        self.heard.append(("end", step, finished))

    @hookimpl
    def ebmkit_exception(self, step: int, error: BaseException) -> None:
        self.heard.append(("exception", step, type(error).__name__))


@pytest.fixture
def heard() -> Heard:
    Listener.heard.clear()
    return Listener.heard


def test_hooks_are_called_in_order(tmp_path: Path, shards: str, heard: Heard) -> None:
    recipe = tiny_recipe(shards, train__steps=3, train__log_every=2, train__checkpoint_every=2, train__sample_every=2)
    new_trainer(tmp_path / "run", watched(recipe, Listener)).train()
    assert heard == [
        ("begin", 0, "run", 4),
        ("step", 2, 2),
        ("samples", 2, (4, 1, 8, 8), {"samples": (4,), "data": (4,), "noise": (4,)}),
        ("checkpoint", 2, "step-000000002"),
        ("step", 3, 3),
        ("checkpoint", 3, "step-000000003"),
        ("end", 3, True),
    ]


def test_a_run_that_was_asked_to_stop_saves_and_ends_unfinished(tmp_path: Path, shards: str, heard: Heard) -> None:
    recipe = tiny_recipe(shards, train__steps=9, train__checkpoint_every=100)
    trainer = new_trainer(tmp_path / "run", watched(recipe, Listener))
    outcome = trainer.train(stop=lambda: trainer.step == 3)
    assert (outcome.step, outcome.finished) == (3, False)
    assert [event[0] for event in heard] == ["begin", "step", "step", "step", "checkpoint", "end"]
    assert heard[-1] == ("end", 3, False)
    assert RunFolder(tmp_path / "run").complete_checkpoints()[-1][0] == 3


def test_an_exception_ends_the_run_for_trackers_too(tmp_path: Path, shards: str, heard: Heard) -> None:
    trainer = new_trainer(tmp_path / "run", watched(tiny_recipe(shards), Listener))

    def stop() -> bool:
        if trainer.step == 2:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        trainer.train(stop)
    assert heard[-1] == ("exception", 2, "KeyboardInterrupt")
    assert "end" not in [event[0] for event in heard]


class Meddler(Tracker):
    """Changes everything that it can reach."""

    name = "meddler"

    @hookimpl
    def ebmkit_train_begin(self, run: RunInfo) -> None:
        self.meddle(run)

    @hookimpl
    def ebmkit_step_end(self, run: RunInfo, metrics: dict[str, float]) -> None:
        metrics.clear()
        self.meddle(run)

    @hookimpl
    def ebmkit_samples_drawn(self, run: RunInfo, images: Tensor, energies: dict[str, Tensor]) -> None:
        images.zero_()
        energies["data"].zero_()
        self.meddle(run)

    def meddle(self, run: RunInfo) -> None:
        assert isinstance(run.recipe, dict)
        run.recipe["train"]["steps"] = 1
        run.recipe.clear()
        torch.manual_seed(0)
        torch.rand(3)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(3)
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.autocast("cpu", torch.bfloat16).__enter__()
        torch.autograd.set_detect_anomaly(True)
        torch.set_default_device("meta")
        random.seed(0)
        np.random.seed(0)
        os.chdir("/")


def test_a_tracker_cannot_change_the_run(
    tmp_path: Path, shards: str, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = ProcessSettings.capture()
    recipe = tiny_recipe(shards, train__steps=4, train__sample_every=2)
    # A relative folder: every later write would go elsewhere if the working directory stayed changed.
    new_trainer(Path("plain"), recipe).train()
    new_trainer(Path("watched"), watched(recipe, Meddler, Listener)).train()
    assert list(differences(last_checkpoint(Path("plain")), last_checkpoint(Path("watched")))) == []
    assert metrics_of(Path("plain")) == metrics_of(Path("watched"))
    assert not Path("watched", ERROR_LOG).exists()
    # Nor what the next one is told.
    assert heard[0] == ("begin", 0, "watched", 4)
    assert [event for event in heard if event[0] == "step"][-1] == ("step", 4, 4)
    assert Path.cwd() == tmp_path
    assert before.changed() == []
    assert before.drawn() == []


def test_whatever_is_changed_of_the_process_is_named_and_given_back(tmp_path: Path) -> None:
    meddler = Meddler(Meddler.Options(), ebmkit.Context((1, 8, 8), 4))
    before = ProcessSettings.capture()
    changed: list[list[str]] = []

    def meddle() -> None:
        with kept() as settings:
            meddler.meddle(RunInfo(tmp_path, {"train": {}}))
            torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
            changed.extend((settings.changed(), settings.drawn()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        meddle()
    assert changed == [[setting.name for setting in SETTINGS], ["torch's", "Python's", "numpy's"]]
    assert (before.changed(), before.drawn()) == ([], [])


class Failing(Tracker):
    """Fails at step 2."""

    name = "failing"
    calls: ClassVar[list[int]] = []

    @hookimpl
    def ebmkit_step_end(self, step: int) -> None:
        self.calls.append(step)
        if step == 2:
            raise RuntimeError("the disk\nis full")

    @hookimpl
    def ebmkit_train_end(self) -> None:
        self.calls.append(-1)


class Exiting(Tracker):
    """Ends the process, or tries to."""

    name = "exiting"

    @hookimpl
    def ebmkit_train_begin(self) -> None:
        raise SystemExit(3)


class Unbuildable(Tracker):
    """Cannot be built."""

    name = "unbuildable"

    def __init__(self, options: Any, context: Any) -> None:
        raise OSError("no server")

    @hookimpl
    def ebmkit_train_begin(self) -> None:
        """Never called."""


def test_a_hook_that_raises_is_reported_and_called_no_more(tmp_path: Path, shards: str, heard: Heard) -> None:
    Failing.calls.clear()
    said: list[str] = []
    recipe = tiny_recipe(shards, train__steps=4)
    new_trainer(tmp_path / "plain", recipe).train()
    trainers = watched(recipe, Failing, Exiting, Unbuildable, Listener)
    assert new_trainer(tmp_path / "run", trainers, said.append).train().finished
    assert Failing.calls == [1, 2]
    log = tmp_path / "run" / ERROR_LOG
    where = f"({__name__})"
    assert said == [
        f"warning: tracker 'unbuildable' {where}: its constructor raised OSError: no server (traceback: {log}); "
        "it is called no more in this process",
        f"warning: tracker 'exiting' {where}: ebmkit_train_begin raised SystemExit: 3 (traceback: {log}); "
        "it is called no more in this process",
        f"warning: tracker 'failing' {where}: ebmkit_step_end raised RuntimeError: the disk is full "
        f"(traceback: {log}); it is called no more in this process",
    ]
    assert "in ebmkit_step_end\n    raise RuntimeError" in log.read_text()
    assert heard[-1] == ("end", 4, True)
    assert list(differences(last_checkpoint(tmp_path / "plain"), last_checkpoint(tmp_path / "run"))) == []


@pytest.mark.parametrize(("tracker", "step"), [(Failing, 2), (Exiting, 0), (Unbuildable, 0)])
def test_a_fatal_hook_ends_the_run_which_can_go_on(
    tracker: type[Tracker], step: int, tmp_path: Path, shards: str, heard: Heard
) -> None:
    Failing.calls.clear()
    recipe = tiny_recipe(shards, train__steps=4, train__hook_errors="fatal", train__checkpoint_every=100)
    with pytest.raises(HookFailed, match=rf"{tracker.name}.*'fatal' ends the run. Once the plugin is mended"):
        new_trainer(tmp_path / "run", watched(recipe, tracker, Listener)).train()
    assert heard[-1] == ("exception", step, "HookFailed")
    saved = RunFolder(tmp_path / "run").complete_checkpoints()
    assert [done for done, _ in saved] == ([2] if step else [])
    if step:
        # Whoever came after the one that failed has heard of the step, too.
        assert ("step", 2, 2) in heard
        from ebmkit.console import Silent
        from ebmkit.trainer import Trainer

        assert Trainer(recipe, RunFolder(tmp_path / "run"), "cpu", Silent()).train().finished
        new_trainer(tmp_path / "plain", recipe).train()
        assert list(differences(last_checkpoint(tmp_path / "plain"), last_checkpoint(tmp_path / "run"))) == []


def test_what_only_hooks_need_is_not_computed_without_one(
    tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(shards, train__steps=1, train__sample_every=1)
    trainer = new_trainer(tmp_path / "run", recipe)
    monkeypatch.setattr(trainer.hooks, "call", lambda hook, **_: pytest.fail(hook) if "samples" in hook else None)
    trainer.train()


def test_a_failing_hook_is_reported_with_the_distribution(
    tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(shards, train__steps=1, trackers=[{"use": "csv"}])
    (part,) = recipe.trackers
    monkeypatch.delattr(part.component, "ebmkit_step_end")
    monkeypatch.setattr(part.component, "ebmkit_step_end", hookimpl(lambda self, step: 1 / 0), raising=False)
    said: list[str] = []
    new_trainer(tmp_path / "run", recipe, said.append).train()
    version = ebmkit.__version__
    assert f"tracker 'csv' (ebmkit {version}): ebmkit_step_end raised ZeroDivisionError" in said[0]


PLUGIN = """
import json
from ebmkit import BaseOptions, Tracker, hookimpl
PLUGIN_API = 1

def write(run, **what):
    with open(run.folder / "heard.jsonl", "a") as file:
        file.write(json.dumps(what) + "\\n")

@hookimpl
def ebmkit_evaluation(run, step, results):
    write(run, module=step, results=dict(results))

class Scribe(Tracker):
    '''Writes down evaluations.'''
    name = "scribe"
    @hookimpl
    def ebmkit_evaluation(self, run, step, results):
        write(run, tracker=step, recipe=run.recipe["trackers"])

@hookimpl
def ebmkit_trackers():
    return [Scribe]
"""


def evaluate(folder: Path, model: Path) -> Result:
    """`ebmkit evaluate` in a process whose Python finds the plugin of this folder."""
    from run_helpers import environment, run_process

    env = environment(PYTHONPATH=str(folder))
    return run_process("evaluate", model, "--count", "4", cwd=folder, env=env)


def test_evaluation_tells_the_trackers_of_the_run(tmp_path: Path, shards: str) -> None:
    from test_plugins import install

    install(tmp_path, "scribe", "scribe", PLUGIN)
    recipe = write_recipe(tmp_path / "mine.toml", table_of(shards, train__steps=2))
    assert run_cli("train", recipe, "--run-dir", tmp_path / "run").code == 0
    model = tmp_path / "run" / "model.safetensors"

    # The plugin's module is told without being named; its tracker is not in the recipe.
    assert evaluate(tmp_path, model).code == 0
    heard = tmp_path / "run" / "heard.jsonl"
    (line,) = [json.loads(line) for line in heard.read_text().splitlines()]
    assert line["module"] == 2
    assert line["results"]["samples"] == 4

    run_recipe = tmp_path / "run" / "recipe.toml"
    run_recipe.write_text(run_recipe.read_text().replace("trackers = []", "trackers = [{use = 'scribe'}]"))
    assert evaluate(tmp_path, model).code == 0
    assert [list(json.loads(line)) for line in heard.read_text().splitlines()][1:] == [
        ["module", "results"],
        ["tracker", "recipe"],
    ]

    # Without the plugin the number still comes, and a warning says what is missing.
    done = run_cli("evaluate", model, "--count", "4")
    assert done.code == 0
    assert "pixel Fréchet distance" in done.out
    assert "trackers were not told" in done.err
    assert "unknown tracker 'scribe'" in done.err

    # A model file that lies elsewhere belongs to no run.
    copy = tmp_path / "elsewhere" / "model.safetensors"
    copy.parent.mkdir()
    copy.write_bytes(model.read_bytes())
    before = contents(tmp_path / "run")
    assert evaluate(tmp_path, copy).code == 0
    assert contents(tmp_path / "run") == before
    assert [path.name for path in copy.parent.iterdir()] == ["model.safetensors"]


MOODY = """
import os
from ebmkit import hookimpl
PLUGIN_API = 1

def fail(hook):
    if os.environ.get("FAIL") == hook:
        raise ValueError("in a mood")

@hookimpl
def ebmkit_train_begin(run):
    fail("begin")

@hookimpl
def ebmkit_evaluation(run):
    fail("evaluation")
"""


def test_what_a_failing_hook_leaves_can_be_used(tmp_path: Path, shards: str) -> None:
    from run_helpers import environment, run_process
    from test_plugins import install

    install(tmp_path, "moody", "moody", MOODY)
    recipe = write_recipe(tmp_path / "mine.toml", table_of(shards, train__steps=2, train__hook_errors="fatal"))

    def command(*words: object, fail: str = "") -> Result:
        return run_process(*words, cwd=tmp_path, env=environment(PYTHONPATH=str(tmp_path), FAIL=fail))

    train = ("train", recipe, "--run-dir", "run")
    done = command(*train, fail="begin")
    assert done.code == 1
    assert "ebmkit_train_begin raised ValueError: in a mood" in done.err
    assert "Traceback" not in done.err
    # The message promises --resume, and the log of errors is kept.
    assert command(*train, "--resume").code == 0
    assert "in a mood" in (tmp_path / "run" / ERROR_LOG).read_text()

    done = command("evaluate", "run/model.safetensors", "--count", "4", "--json", fail="evaluation")
    assert done.code == 0
    assert json.loads(done.out)["samples"] == 4
    assert "warning: plugin 'moody' (moody 1.2): ebmkit_evaluation raised ValueError: in a mood" in done.err


def test_no_component_can_overwrite_the_run_s_own_numbers(
    tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards, train__steps=2))
    loss = trainer.objective.loss

    def named(pairs: ebmkit.Pairs) -> ebmkit.Term:
        taken = {name: torch.tensor(-77.0) for name in ("step", "images", "loss", "gradient_norm", "learning_rate")}
        return ebmkit.Term(loss(pairs).value, taken)

    monkeypatch.setattr(trainer.objective, "loss", named)
    trainer.train()
    rows = metrics_of(tmp_path / "run")
    assert [(row["step"], row["images"]) for row in rows] == [(1, 8), (2, 16)]
    assert all(value != -77.0 for row in rows for value in row.values())


def test_a_model_needs_no_tracker(tmp_path: Path, shards: str) -> None:
    recipe = watched(tiny_recipe(shards, train__steps=1), Listener)
    outcome = new_trainer(tmp_path / "run", recipe).train()
    assert "listener" in (tmp_path / "run" / "recipe.toml").read_text()
    model = ebmkit.load(outcome.model)
    assert model.recipe.trackers == ()
    assert model.sample(2).shape == (2, 1, 8, 8)
