"""Bad input: one clear message, exit code 2, no traceback, nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import ebmkit
from run_helpers import (
    RECIPES,
    Result,
    contents,
    new_trainer,
    run_cli,
    run_process,
    tiny_recipe,
    tiny_table,
    write_recipe,
    write_shards,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def model(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe(shards, train__steps=1)
    return new_trainer(tmp_path_factory.mktemp("trained") / "run", recipe).train().folder / "model.safetensors"


def assert_refused(result: Result, *parts: str) -> None:
    assert result.code == 2, result
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    assert result.err.count("error: ") == 1
    for part in parts:
        assert part in result.err


RECIPE_FAULTS: list[tuple[str, tuple[str, ...]]] = [
    # Unknown keys and plugins, with the nearest name.
    ("sampler.stepz=3", ("sampler.stepz", "unknown option", "did you mean 'steps'")),
    ("trian.steps=3", ("trian", "unknown key", "did you mean 'train'")),
    ("train.step=3", ("train.step ", "unknown option", "did you mean 'steps'")),
    ("regularizers.0.wieght=3", ("regularizers.0.wieght", "did you mean 'weight'")),
    ("energy.use=unett", ("energy.use", "unknown energy 'unett'", "did you mean 'unet'")),
    ("buffer.use=cylic", ("buffer.use", "did you mean 'cyclic'")),
    ("sampler.noise.use=lineer", ("sampler.noise.use", "unknown schedule 'lineer'", "did you mean 'linear'")),
    ("objective.use=zzzz", ("objective.use", "installed: contrastive_divergence")),
    ("regularizers.dropout.weight=1", ("the list has no 'dropout'", "0 (wgan_lp)")),
    # Shards that are not opened by ebmkit itself, with the command that reads them.
    ("data.shards=s3://b/x-{0..3}.tar", ("data.shards", "pipe:aws s3 cp s3://b/x-{0..3}.tar -")),
    ("data.shards=gs://b/x.tar", ("data.shards", "pipe:gcloud storage cat gs://b/x.tar")),
    # Wrong types.
    ("sampler.steps=3.5", ("sampler.steps", "must be a whole number, not 3.5")),
    ("sampler.steps=true", ("sampler.steps", "must be a whole number, not true")),
    ("train.batch_size=many", ("train.batch_size", "must be a whole number, not 'many'")),
    ("data.horizontal_flip=1", ("data.horizontal_flip", "must be true or false, not 1")),
    ("sampler.noise=loud", ("sampler.noise", "must be a number or a schedule table")),
    ("energy=unet", ("energy", "must be a table, not 'unet'")),
    ("regularizers=wgan_lp", ("regularizers", "must be a list of tables")),
    ("time_steps=ten", ("time_steps", "must be a whole number, not 'ten'")),
    ("optimizer.betas=[0.9]", ("optimizer.betas",)),
    # Out of range.
    ("time_steps=0", ("time_steps", "between 1 and 100000, not 0")),
    ("seed=-1", ("seed", "between 0 and")),
    ("sampler.steps=0", ("sampler.steps", "not 0")),
    ("train.ema_decay=1.0", ("train.ema_decay", "not 1.0")),
    ("optimizer.betas=[0.9, 1.5]", ("optimizer.betas", "not 1.5")),
    ("sampler.step_size=-1.0", ("sampler.step_size", "below 0")),
    ("data.channels=2", ("data.channels", "1 or 3")),
    ("train.steps=nan", ("train.steps",)),
    ("optimizer.learning_rate=nan", ("optimizer.learning_rate", "finite")),
    # Parts that cannot work together.
    ("train.batch_size=41", ("buffer.size", "at least train.batch_size (41), not 40")),
    ("buffer.use=fresh", ("buffer.use", "'fresh' needs time_steps = 1, not 4")),
    ("data.image_size=9", ("energy", "9 is not divisible by 2", "8 or 10")),
    ("data.image_size=[8, 7]", ("energy", "width 7 is not divisible by 2", "6 or 8")),
    # --set itself.
    ("sampler", ("--set sampler: write key=value",)),
    ("=3", ("write key=value",)),
    ("a..b=3", ("write key=value",)),
]


@pytest.mark.parametrize(("change", "parts"), RECIPE_FAULTS, ids=[change for change, _ in RECIPE_FAULTS])
def test_faults_of_recipes(change: str, parts: tuple[str, ...], shards: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards))
    for command in (["check", recipe], ["train", recipe, "--run-dir", tmp_path / "run"]):
        assert_refused(run_cli(*command, "--set", change), *parts)
    assert not (tmp_path / "run").exists()


def test_all_faults_are_told_at_once(shards: str, tmp_path: Path) -> None:
    table = tiny_table(shards, seed="x", train__stepz=1, data__channels=9)
    del table["sampler"], table["time_steps"]
    result = run_cli("check", write_recipe(tmp_path / "r.toml", table))
    assert_refused(result, f"{tmp_path / 'r.toml'}: 5 problems")
    paths = [line.split()[0] for line in result.err.splitlines()[1:] if line.strip()]
    assert sorted(paths) == ["data.channels", "sampler", "seed", "time_steps", "train.stepz"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seed = 1\ntime_steps = \n", ("not valid TOML", "line 2")),
        ("seed = 1\n\n[data\nx = 1", ("not valid TOML", "line 3")),
        ("seed = 1\nseed = 2\n", ("not valid TOML", "line 2")),
        ("", ("time_steps", "is required")),
        ("seed = " + "[" * 5000, ("r.toml",)),
        ("#" * 1_000_001, ("larger than 1,000,000 bytes",)),
    ],
)
def test_files_that_are_no_recipes(text: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    assert_refused(run_cli("check", tmp_path / "r.toml"), str(tmp_path / "r.toml"), *parts)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"seed = \xff\xfe")
    assert_refused(run_cli("check", tmp_path / "r.toml"), "not UTF-8 text (byte 7)")


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    assert_refused(run_cli("train", tmp_path / "none.toml"), "no such recipe file", "shipped recipes: ", "digits")
    assert_refused(run_cli("train", "digts", cwd=tmp_path), "did you mean 'digits'")
    assert_refused(run_cli("check", tmp_path), "is a folder, not a recipe file")
    assert list(tmp_path.iterdir()) == []


def test_missing_shards_name_the_command_that_makes_them(tmp_path: Path) -> None:
    for name in ("cifar10_resnet", "celeba64"):
        make = ebmkit.check(name).data.make
        assert make
        assert_refused(run_cli("train", RECIPES / f"{name}.toml", cwd=tmp_path), "shards/", make, str(tmp_path))
    assert list(tmp_path.iterdir()) == [], "no run folder is left"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none/*.tar", "no file matches none/*.tar"),
        ("folder", "is a folder; name its shards"),
        ("train-{0..", "unbalanced braces"),
    ],
)
def test_patterns_that_match_nothing(pattern: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write_recipe(tmp_path / "r.toml", tiny_table(pattern))
    assert_refused(run_cli("train", "r.toml", cwd=tmp_path), message)
    assert not (tmp_path / "runs").exists()


CACHES: list[dict[str, Any]] = [
    {"data__cache": "device"},
    {"data__cache": "off"},
    {"data__cache": "off", "data__workers": 1},
]


@pytest.mark.parametrize("cache", CACHES, ids=["cached", "streamed", "one worker"])
def test_shards_of_another_size(cache: dict[str, Any], tmp_path: Path) -> None:
    larger = write_shards(tmp_path / "larger", size=16)
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(larger, **cache))
    result = run_cli("train", recipe, "--run-dir", tmp_path / "run")
    assert_refused(result, "is 16x16", "the recipe says 8x8", "wrong_size", "make-shards")
    assert not (tmp_path / "run").exists(), "the same command works once the recipe is mended"
    right = run_cli("train", recipe, "--run-dir", tmp_path / "run", "--set", "data.wrong_size=resize", "train.steps=1")
    assert right.code == 0, right.err


def test_shards_of_another_channel_count_are_converted(shards: str, tmp_path: Path) -> None:
    """Grey and colour are no error: the recipe's channels are what images are converted to."""
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards, data__channels=3, train__steps=1))
    assert run_cli("train", recipe, "--run-dir", tmp_path / "run").code == 0
    assert ebmkit.load(tmp_path / "run" / "model.safetensors").sample(1).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("cache", CACHES, ids=["cached", "streamed", "one worker"])
def test_shards_without_a_usable_image_are_an_error_not_a_hang(cache: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"this is no tar file" * 100)
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(str(tmp_path / "a.tar"), **cache))
    result = run_cli("train", recipe, "--run-dir", tmp_path / "run")
    assert result.code in (1, 2)
    assert "no usable image" in result.err
    assert "a.tar" in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["cuda:7", "cuda:99", "tpu", "meta", "gpu"])
def test_devices_that_are_not_there(device: str, shards: str, model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards))
    words = ["--run-dir", tmp_path / "run", "--set", f"train.device={device}"]
    assert_refused(run_cli("train", recipe, *words), f"device '{device}'")
    assert_refused(run_cli("sample", model, "--device", device, "--out", tmp_path / "x.png"), f"device '{device}'")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.toml"]


def test_model_files_that_are_none(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    state = next((model.parent / "checkpoints").glob("*/state.safetensors"))
    for path, message in [
        (tmp_path / "cut.safetensors", "not a complete safetensors file"),
        (tmp_path / "text.safetensors", "not a complete safetensors file"),
        (tmp_path / "empty.safetensors", "not a complete safetensors file"),
        (tmp_path / "none.safetensors", "no such model file"),
        (tmp_path, "no such model file"),
        (state, "not one that ebmkit exported"),
    ]:
        before = contents(tmp_path)
        assert_refused(run_cli("sample", path, "--out", tmp_path / "x.png"), str(path), message)
        assert_refused(run_cli("evaluate", path), str(path), message)
        assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "m", "--count", "0"], "--count"),
        (["sample", "m", "--batch-size", "-3"], "--batch-size"),
        (["sample", "m", "--seed", "-1"], "--seed"),
        (["sample"], "Missing argument"),
        (["train", "--no-such-option"], "--no-such-option"),
        (["trian"], "train"),
        (["make-shards", "x", "y", "--format", "gif"], "gif"),
        (["make-shards", "no-such-folder", "out"], "no-such-folder"),
    ],
)
def test_words_that_the_command_line_does_not_know(words: list[str], message: str, tmp_path: Path) -> None:
    result = run_cli(*words, cwd=tmp_path)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_before_its_chains_is_warned_about(shards: str, tmp_path: Path) -> None:
    """4 time steps of a slot that is drawn every 480 / 8 steps are 240."""
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards, buffer__size=8 * 60))
    told = run_cli("check", recipe, "--set", "train.steps=239").err
    assert "a chain takes 240 steps on average" in told
    assert "the run has 239" in told
    for long_enough in (("train.steps=240",), ("train.steps=239", "buffer.size=400"), ("train.steps=199",)):
        words = [word for value in long_enough for word in ("--set", value)]
        assert "a chain takes" not in run_cli("check", recipe, *words).err


@pytest.mark.parametrize(("size", "what"), [("0.1", "cannot reach the data"), ("30.0", "will overshoot the data")])
def test_a_recipe_far_from_reachability_is_warned_about(size: str, what: str, shards: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards, train__steps=1))
    words = ["--set", f"sampler.step_size={size}"]
    checked = run_cli("check", recipe, *words)
    assert checked.code == 0
    assert "warning: reachability" in checked.err
    assert what in checked.err
    assert re.search(r"covers \d+\.\d\d times", checked.err)
    trained = run_cli("train", recipe, *words, "--run-dir", tmp_path / "run")
    assert trained.code == 0, trained.err
    assert what in trained.out
    assert "warning" not in run_cli("check", recipe).err


def test_a_plugin_that_is_disabled_is_named(tmp_path: Path) -> None:
    from run_helpers import environment

    result = run_process("check", "digits", cwd=tmp_path, env=environment(EBMKIT_DISABLE_PLUGINS="unet"))
    assert_refused(result, "unknown energy 'unet'", "EBMKIT_DISABLE_PLUGINS")


def test_a_run_folder_that_cannot_be_made(shards: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards))
    (tmp_path / "file").write_text("mine")
    assert_refused(run_cli("train", recipe, "--run-dir", tmp_path / "file" / "run"), "cannot be written")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("optimizer.learning_rate=-1", "optimizer.learning_rate"),
        ("optimizer.learning_rate=1e300", "optimizer.learning_rate"),
        ('optimizer.learning_rate={use = "linear", start = 1e-4, end = -1.0}', "optimizer.learning_rate"),
        ('regularizers=[{use = "spectral_norm"}, {use = "spectral_norm"}]', "regularizers"),
    ],
)
def test_values_that_cannot_train_are_refused_by_check(change: str, path: str) -> None:
    result = run_cli("check", "digits", "--set", change)
    assert result.code == 2
    assert f"  {path}  " in result.err


def test_annealing_over_a_single_time_step_is_refused() -> None:
    result = run_cli("check", "digits", "--set", "time_steps=1", "--set", "sampler.anneal=time_step")
    assert result.code == 2
    assert "sampler.anneal" in result.err


def test_the_hint_of_a_recipe_is_not_given_for_other_shards(tmp_path: Path) -> None:
    words = ["train", "lsun_church64", "--run-dir", tmp_path / "run"]
    assert "make-shards LSUN" in run_cli(*words, cwd=tmp_path).err
    other = run_cli(*words, "--set", "data.shards=mine.tar", cwd=tmp_path)
    assert other.code == 2
    assert "mine.tar" in other.err
    assert "make-shards" not in other.err
