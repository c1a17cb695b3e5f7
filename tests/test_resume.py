"""A resumed run is the same run: real kills, real signals, compared bit for bit."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ebmkit import RecipeError, checkpoint
from ebmkit import recipe as recipes
from ebmkit.run_folder import RunFolder
from ebmkit.stopping import TRY_AGAIN
from run_helpers import (
    Command,
    contents,
    differences,
    environment,
    last_checkpoint,
    metrics_of,
    run_cli,
    tiny_table,
    wait_until,
    write_recipe,
    write_shards,
)

STEPS, EVERY = 40, 8
MODES: dict[str, dict[str, Any]] = {
    "cached": {"data__cache": "device"},
    "streamed": {"data__cache": "off", "data__workers": 2, "data__shuffle": 7},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    shards = write_shards(folder / "shards", shards=4, per_shard=11)
    changes = {
        "train__steps": STEPS,
        "train__checkpoint_every": EVERY,
        "train__log_every": 3,
        "train__sample_every": 20,
        "data__horizontal_flip": True,
    }
    for mode, more in MODES.items():
        write_recipe(folder / f"{mode}.toml", tiny_table(shards, **changes, **more))
    return folder


def newest_checkpoint(run: Path) -> Any:
    folder = RunFolder(run)
    return checkpoint.load(folder, checkpoint.newest(folder))


def python_m_ebmkit(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ebmkit", *words],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def has_checkpoint(run: Path, step: int) -> bool:
    return any(found >= step for found, _ in RunFolder(run).complete_checkpoints())


@pytest.fixture(scope="module")
def whole(home: Path) -> dict[str, Path]:
    """Runs that nothing interrupted."""
    for mode in MODES:
        done = Command("train", f"{mode}.toml", "--run-dir", f"whole-{mode}", cwd=home).wait()
        assert done.code == 0, done.err
    return {mode: home / f"whole-{mode}" for mode in MODES}


def assert_same_run(a: Path, b: Path) -> None:
    assert not list(differences(load_file(a / "model.safetensors"), load_file(b / "model.safetensors")))
    one, other = last_checkpoint(a), last_checkpoint(b)
    shared, local = one["state.safetensors"], one["rank-0000.safetensors"]
    assert {"model", "ema", "engine"} <= shared.keys()
    assert {"x", "t"} == local["buffer"].keys()
    assert local["data"]["kind"] in ("cache", "stream")
    assert not list(differences(one, other))
    assert metrics_of(a) == metrics_of(b)
    pictures = sorted(path.name for path in (a / "samples").iterdir())
    assert pictures == sorted(path.name for path in (b / "samples").iterdir())
    assert all((a / "samples" / p).read_bytes() == (b / "samples" / p).read_bytes() for p in pictures)


@pytest.mark.parametrize("mode", MODES)
def test_kill_minus_9_and_resume_is_the_same_run(mode: str, home: Path, whole: dict[str, Path]) -> None:
    run = home / f"killed-{mode}"
    process = python_m_ebmkit("train", f"{mode}.toml", "--run-dir", run.name, cwd=home)
    wait_until(lambda: has_checkpoint(run, STEPS // 2 - STEPS // 2 % EVERY))
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not has_checkpoint(run, STEPS), "the run was over before it was killed"
    again = python_m_ebmkit("train", f"{mode}.toml", "--run-dir", run.name, "--resume", cwd=home)
    text = again.communicate(timeout=100)[0]
    assert again.returncode == 0, text
    assert "going on from step" in text
    assert_same_run(whole[mode], run)


def test_the_comparison_would_notice_another_seed(home: Path, whole: dict[str, Path]) -> None:
    done = Command("train", "cached.toml", "--set", "seed=4", "--run-dir", "other-seed", cwd=home).wait()
    assert done.code == 0, done.err
    one, other = last_checkpoint(whole["cached"]), last_checkpoint(home / "other-seed")
    found = set(differences(one, other))
    assert "/rank-0000.safetensors/buffer/x" in found
    assert any(path.startswith("/state.safetensors/engine/state") for path in found)
    assert metrics_of(whole["cached"]) != metrics_of(home / "other-seed")


def test_a_kill_between_model_file_and_last_checkpoint_is_mended(home: Path, finished: Path) -> None:
    """Without its newest checkpoint, and with the model file of another moment, the run ends as it should."""
    right = {name: weight.clone() for name, weight in load_file(finished / "model.safetensors").items()}
    shutil.rmtree(RunFolder(finished).complete_checkpoints()[-1][1])
    (finished / "model.safetensors").write_bytes(b"not the last one")
    result = run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume")
    assert result.code == 0, result.err
    assert not list(differences(load_file(finished / "model.safetensors"), right))


def test_a_half_written_checkpoint_is_not_used(home: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole["cached"], run)
    newest = RunFolder(run).complete_checkpoints()[-1]
    older = RunFolder(run).complete_checkpoints()[-2]
    newest[1].rename(newest[1].with_name("." + newest[1].name))
    (newest[1].with_name("." + newest[1].name) / "state.safetensors").write_bytes(b"half")
    assert newest_checkpoint(run).step == older[0]  # type: ignore[union-attr]
    result = run_cli("train", home / "cached.toml", "--run-dir", run, "--resume")
    assert result.code == 0, result.err
    assert f"going on from step {older[0]}" in result.out
    assert not list(differences(last_checkpoint(whole["cached"]), last_checkpoint(run)))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, TRY_AGAIN), (signal.SIGUSR1, TRY_AGAIN)]
)
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    number: signal.Signals, code: int, home: Path, whole: dict[str, Path]
) -> None:
    run = home / f"stopped-{number.name}"
    command = Command("train", "streamed.toml", "--run-dir", run.name, cwd=home)
    wait_until(lambda: has_checkpoint(run, EVERY))
    # The terminal's Ctrl-C, and many a scheduler's signal, reach the data workers, too.
    command.kill(number, group=True)
    stopped = command.wait()
    assert stopped.code == code
    assert f"ebmkit train streamed.toml --run-dir {run.name} --resume" in stopped.out
    assert number.name in stopped.out
    assert "Traceback" not in stopped.out + stopped.err
    assert command.group_is_gone(), "data workers are still there"
    at = RunFolder(run).complete_checkpoints()[-1][0]
    assert f"step {at}" in stopped.out
    assert (run / "model.safetensors").is_file()
    again = Command("train", "streamed.toml", "--run-dir", run.name, "--resume", cwd=home).wait()
    assert again.code == 0, again.err
    assert f"going on from step {at}" in again.out
    assert_same_run(whole["streamed"], run)


@pytest.fixture(scope="module")
def many(home: Path) -> str:
    """More images than are loaded before the signal comes."""
    return write_shards(home / "many", shards=1, per_shard=12_000)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_before_the_first_step_is_no_traceback(
    number: signal.Signals, code: int, home: Path, many: str
) -> None:
    """While images are loaded there is nothing to save yet."""
    command = Command("train", "cached.toml", f"--set=data.shards={many}", "--run-dir", "early", cwd=home)
    wait_until(lambda: (home / "early" / ".lock").exists())
    time.sleep(0.05)
    command.kill(number, group=True)
    stopped = command.wait()
    assert stopped.code == code
    assert "Traceback" not in stopped.out + stopped.err
    assert not (home / "early").exists(), "the same command can be given again"


def test_a_scheduler_that_asks_twice_does_not_spoil_the_checkpoint(home: Path, whole: dict[str, Path]) -> None:
    """Slurm sends what `--signal` says, and SIGTERM at the end of the time."""
    run = home / "twice"
    command = Command("train", "cached.toml", "--run-dir", run.name, cwd=home)
    wait_until(lambda: has_checkpoint(run, EVERY))
    command.kill(signal.SIGUSR1)
    wait_until(lambda: "SIGUSR1: writing a checkpoint" in command.out.read_text())
    for _ in range(3):
        command.kill(signal.SIGTERM)
    stopped = command.wait()
    assert stopped.code == TRY_AGAIN
    assert "Traceback" not in stopped.out + stopped.err
    again = Command("train", "cached.toml", "--run-dir", run.name, "--resume", cwd=home).wait()
    assert again.code == 0, again.err
    assert_same_run(whole["cached"], run)


@pytest.fixture
def finished(whole: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a finished run that a test may change."""
    shutil.copytree(whole["cached"], tmp_path / "run")
    return tmp_path / "run"


def test_resume_of_a_finished_run_says_so_and_changes_nothing(home: Path, finished: Path) -> None:
    before = contents(finished)
    result = run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume")
    assert result.code == 0, result.err
    assert f"already finished, at step {STEPS}" in result.out
    assert contents(finished) == before


def test_more_steps_go_on_and_the_earlier_recipe_is_kept(home: Path, finished: Path) -> None:
    old = (finished / "recipe.toml").read_text()
    more = STEPS + 3
    result = run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume", "--set", f"train.steps={more}")
    assert result.code == 0, result.err
    assert RunFolder(finished).complete_checkpoints()[-1][0] == more
    assert metrics_of(finished)[-1]["step"] == more
    assert (finished / "recipe-1.toml").read_text() == old
    assert tomllib.loads((finished / "recipe.toml").read_text())["train"]["steps"] == more
    # Without --set the run keeps what it was last given.
    again = run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume")
    assert again.code == 0
    assert not (finished / "recipe-2.toml").exists()


def test_fewer_steps_than_done_change_nothing(home: Path, finished: Path) -> None:
    before = contents(finished)
    result = run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume", "--set", "train.steps=5")
    assert result.code == 0
    assert f"already finished, at step {STEPS}" in result.out
    assert contents(finished) == before


def test_an_existing_run_folder_is_refused_untouched(home: Path, finished: Path) -> None:
    before = contents(finished)
    result = run_cli("train", home / "cached.toml", "--run-dir", finished)
    assert result.code == 2
    assert "--resume" in result.err
    assert "--run-dir" in result.err
    assert contents(finished) == before


def test_a_folder_that_holds_anything_is_refused_untouched(home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    result = run_cli("train", home / "cached.toml", "--run-dir", tmp_path / "mine")
    assert result.code == 2
    assert contents(tmp_path / "mine") == {"thesis.txt": b"years of work"}


def test_resume_without_a_run_is_refused(home: Path, tmp_path: Path) -> None:
    result = run_cli("train", home / "cached.toml", "--run-dir", tmp_path / "none", "--resume")
    assert result.code == 2
    assert "no run here" in result.err
    assert not (tmp_path / "none").exists()


def test_a_second_process_in_the_same_run_folder_is_refused(home: Path) -> None:
    words = ["train", "streamed.toml", "--run-dir", "shared", "--set", "train.steps=100000"]
    first = Command(*words, cwd=home)
    wait_until(lambda: has_checkpoint(home / "shared", EVERY))
    second = Command(*words[:4], "--resume", cwd=home).wait()
    assert second.code == 2
    assert "another process" in second.err
    first.kill(signal.SIGKILL)
    assert first.wait().code == -signal.SIGKILL
    # Data workers notice the death of their parent only after seconds; they must not hold the run until then.
    third = Command(*words[:4], "--resume", "--set", "train.steps=1", cwd=home).wait()
    assert third.code == 0, third.err


@pytest.mark.parametrize("keep", [1, 3])
def test_old_checkpoints_are_pruned(keep: int, home: Path, tmp_path: Path) -> None:
    words = ["--set", f"train.keep_checkpoints={keep}", "--set", "train.steps=10", "--set", "train.checkpoint_every=2"]
    result = run_cli("train", home / "cached.toml", "--run-dir", tmp_path / "run", *words)
    assert result.code == 0, result.err
    steps = [step for step, _ in RunFolder(tmp_path / "run").complete_checkpoints()]
    assert steps == [2, 4, 6, 8, 10][-keep:]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "change",
    [
        "energy.channels=16",
        "energy.use=resnet",
        "buffer.size=80",
        "buffer.dtype=float16",
        "time_steps=5",
        "data.image_size=16",
    ],
)
def test_what_a_checkpoint_cannot_follow_is_refused_on_resume(change: str, home: Path, finished: Path) -> None:
    before = contents(finished)
    result = run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume", "--set", change)
    assert result.code == 2
    assert change.partition("=")[0] in result.err
    assert "resumed run" in result.err
    assert contents(finished) == before


def test_an_edited_recipe_file_is_mentioned_and_not_followed(home: Path, finished: Path, tmp_path: Path) -> None:
    table = tomllib.loads((home / "cached.toml").read_text())
    table["sampler"]["steps"] = 7
    edited = write_recipe(tmp_path / "cached.toml", table)
    result = run_cli("train", edited, "--run-dir", finished, "--resume")
    assert result.code == 0, result.err
    assert "sampler.steps" in result.out
    assert recipes.load(finished / "recipe.toml").sampler.options.steps == 2


def test_a_damaged_checkpoint_is_one_clear_message(home: Path, finished: Path) -> None:
    newest = RunFolder(finished).complete_checkpoints()[-1][1] / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    more = ["--set", f"train.steps={STEPS + 1}"]
    result = run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume", *more)
    assert result.code == 2
    assert str(newest) in result.err
    assert "Traceback" not in result.err


def test_a_bad_value_on_resume_leaves_the_recipe_alone(home: Path, finished: Path) -> None:
    before = contents(finished)
    result = run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume", "--set", "train.steps=none")
    assert result.code == 2
    assert "train.steps" in result.err
    assert contents(finished) == before
    with pytest.raises(RecipeError):
        recipes.load(finished / "recipe.toml", {"train.steps": "none"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("data.shards=nowhere-*.tar", "nowhere-*.tar"),
        ('regularizers=[{use = "spectral_norm"}]', "regularizers.spectral_norm"),
        ('data={shards = "x.tar", image_size = 16, channels = 1}', "data.image_size"),
    ],
)
def test_a_refused_change_leaves_a_run_that_still_resumes(change: str, named: str, home: Path, finished: Path) -> None:
    before = contents(finished)
    more = ["--set", f"train.steps={STEPS + 1}"]
    result = run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume", "--set", change, *more)
    assert result.code == 2
    assert named in result.err
    assert contents(finished) == before
    assert run_cli("train", home / "cached.toml", "--run-dir", finished, "--resume", *more).code == 0
    assert RunFolder(finished).complete_checkpoints()[-1][0] == STEPS + 1


def test_a_kill_before_the_first_checkpoint_leaves_no_line_twice(home: Path) -> None:
    words = ["train", "cached.toml", "--run-dir", "early", "--set", "train.log_every=1"]
    long = ["--set", "train.steps=100000", "--set", "train.checkpoint_every=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ebmkit", *words, *long], cwd=home, env=environment(), stdout=subprocess.DEVNULL
    )
    lines = home / "early" / "metrics.jsonl"
    wait_until(lambda: lines.is_file() and lines.read_text().count("\n") >= 2)
    process.kill()
    process.wait()
    assert RunFolder(home / "early").complete_checkpoints() == []
    result = run_cli("train", home / "cached.toml", "--run-dir", home / "early", "--resume", "--set", "train.steps=4")
    assert result.code == 0, result.err
    assert [row["step"] for row in metrics_of(home / "early")] == [1, 2, 3, 4]
