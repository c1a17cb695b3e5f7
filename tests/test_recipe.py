"""Reading recipe files, and writing the resolved recipe."""

from __future__ import annotations

import os
import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ebmkit import BadInput, RecipeError
from ebmkit import recipe as recipes
from ebmkit.interfaces import Context
from ebmkit.recipe import MAX_BYTES, Recipe, find, from_table, load, read_toml, shipped_recipes
from recipe_tables import VALID

SHIPPED = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "r.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed = 1\ntime_steps = \n", "not valid TOML: Invalid value (at line 2, column 14)"),
        ("seed = 1\nseed = 2\n", "not valid TOML: Cannot overwrite a value (at line 2, column 9)"),
        ("seed = 1\n\n[data\nx = 1", "not valid TOML: Expected ']' at the end of a table declaration (at line 3"),
        ('[data]\nshards = "a\n', "not valid TOML: Illegal character '\\n' (at line 2, column 12)"),
        ("\ufeffseed = 1", "not valid TOML: Invalid statement (at line 1, column 1)"),
        (b"seed = 1 # \xff", "not UTF-8 text (byte 11)"),
        (b"\xff\xfes\x00e\x00", "not UTF-8 text (byte 0)"),
        ("#" * (MAX_BYTES + 1), "larger than 1,000,000 bytes; this is no recipe"),
        ("seed = " + "[" * 5000 + "]" * 5000, "nested too deeply; this is no recipe"),
        ("seed = " + "{ a = " * 3000, "nested too deeply; this is no recipe"),
        ("seed = " + "9" * 5000, "cannot be read: Exceeds the limit (4300 digits)"),
    ],
    ids=["value", "twice", "bracket", "string", "bom", "latin-1", "utf-16", "large", "list", "table", "digits"],
)  # fmt: skip
def test_files_that_are_no_recipes_are_refused(content: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(BadInput) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert caught.value.exit_code == 2


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    assert read_toml(write(tmp_path, "#".ljust(MAX_BYTES - 1) + "\n")) == {}


def test_tables_nested_too_deeply_are_refused_wherever_they_come_from() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BadInput, match=r"x\.toml: nested too deeply"):
        from_table(VALID | {"seed": deep}, "x.toml", "x")
    with pytest.raises(BadInput, match=r"x\.toml: nested too deeply"):
        from_table(VALID, "x.toml", "x", {"sampler.noise": deep})


def test_what_is_not_there_names_the_shipped_recipes(tmp_path: Path) -> None:
    names = ", ".join(path.stem for path in SHIPPED)
    for source in (
        tmp_path / "none.toml",
        "zzz",
        tmp_path / "no" / "folder.toml",
        SHIPPED[0] / "x.toml",
        "a\0b",
        "x" * 300,
    ):
        with pytest.raises(BadInput) as caught:
            load(source)
        assert "no such recipe file" in str(caught.value) or "cannot be read: File name too long" in str(caught.value)
        if isinstance(source, Path):
            assert str(caught.value) == f"{source}: no such recipe file; shipped recipes: {names}"


@pytest.mark.parametrize(
    ("source", "name"),
    [("digts", "digits"), ("digit.toml", "digits"), ("x/celeb64.toml", "celeba64"), ("cifar10-unet", "cifar10_unet")],
)  # fmt: skip
def test_a_name_nearly_right_is_suggested(source: str, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        find(source)
    assert str(caught.value) == f"{source}: no such recipe file; did you mean '{name}'?"


def test_folders_and_special_files_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder, not a recipe file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(BadInput, match="is a special file, not a recipe file"):
        load(tmp_path / "pipe.toml")
    with pytest.raises(BadInput, match="is a special file"):
        load("/dev/null")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, "seed = 1")
    path.chmod(0)
    with pytest.raises(BadInput, match="cannot be read: Permission denied"):
        load(path)


def test_a_file_comes_before_a_shipped_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("digits") == shipped_recipes()["digits"]
    (tmp_path / "digits").write_text(tomli_w.dumps(VALID))
    assert load("digits").time_steps == 4
    # A folder such as `runs/../digits` hides nothing silently.
    (tmp_path / "digits").unlink()
    (tmp_path / "digits").mkdir()
    with pytest.raises(BadInput, match="digits: is a folder"):
        load("digits")


def test_problems_of_a_file_name_it_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, tomli_w.dumps(VALID | {"seed": -1}))
    with pytest.raises(RecipeError) as caught:
        load("r.toml")
    assert str(caught.value) == f"r.toml: 1 problem\n  seed  must be between 0 and {2**63 - 1}, not -1"
    # As a worker process sends it to its parent.
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)


def resolved(**changes: Any) -> Recipe:
    return from_table(VALID, "x.toml", "x", {key.replace("__", "."): value for key, value in changes.items()})


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_shipped_recipes_come_back_from_their_resolved_toml(path: Path) -> None:
    recipe = load(path.stem)
    assert recipe.name == path.stem
    text = recipe.to_toml()
    again = from_table(tomllib.loads(text), "again", path.stem)
    assert again == recipe
    assert again.to_toml() == text


def test_the_resolved_recipe_has_every_option_but_those_that_are_none() -> None:
    recipe = resolved(sampler__clip_gradient=1.5)
    table = tomllib.loads(recipe.to_toml())
    assert table["sampler"] == {
        "use": "langevin",
        "steps": 2,
        "step_size": "auto",
        "noise": {"use": "linear", "start": 0.1, "end": 0.0, "until": 1.0},
        "anneal": "step",
        "auto_ratio": 1.1,
        "clip_gradient": 1.5,
        "clamp": 2.0,
    }
    assert table["seed"] == 0
    assert "make" not in table["data"]
    assert "clip_grad_norm" not in table["optimizer"]
    assert [part["use"] for part in table["regularizers"]] == ["wgan_lp", "spectral_norm"]
    assert "clamp" not in resolved(sampler={"use": "langevin"}).to_table()["sampler"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (0.25, 0.25),
        (1, 1.0),
        ({"use": "constant", "value": 0.5}, 0.5),
        ({"use": "linear", "start": 1}, {"use": "linear", "start": 1.0, "end": 0.0, "until": 1.0}),
        ({"use": "geometric", "start": 1, "end": 0.5}, {"use": "geometric", "start": 1.0, "end": 0.5}),
        (
            {"use": "cosine_restarts", "start": 1.0},
            {"use": "cosine_restarts", "start": 1.0, "end": 0.0, "cycles": 4, "growth": 1.0},
        ),
    ],
)
def test_schedules_are_written_as_numbers_or_tables(written: object, value: object) -> None:
    recipe = resolved(sampler__noise=written, optimizer__learning_rate=written, sampler__step_size=written)
    table = tomllib.loads(recipe.to_toml())
    assert table["sampler"]["noise"] == table["sampler"]["step_size"] == table["optimizer"]["learning_rate"] == value
    again = from_table(table, "again", "x")
    assert again == recipe
    for progress in (0.0, 0.3, 1.0):
        assert again.sampler.options.noise(progress) == recipe.sampler.options.noise(progress)


def test_recipes_that_differ_are_not_equal() -> None:
    assert resolved() == resolved()
    for changes in (
        {"seed": 1},
        {"sampler__noise__start": 0.2},
        {"sampler__noise": 0.1},
        {"regularizers": []},
        {"data__shards": "a.tar"},
        {"optimizer__betas": [0.5, 0.8]},
        {"energy__use": "resnet"},
    ):
        assert resolved(**changes) != resolved()


def test_parts_and_context() -> None:
    recipe = resolved()
    assert {path: part.name for path, part in recipe.parts.items()} == {
        "energy": "unet",
        "sampler": "langevin",
        "buffer": "cyclic",
        "objective": "contrastive_divergence",
        "regularizers.0": "wgan_lp",
        "regularizers.1": "spectral_norm",
    }
    assert all(part.kind == path.split(".")[0].removesuffix("s") for path, part in recipe.parts.items())
    assert recipe.context("cpu", 1, 2) == Context((1, 8, 16), 4, "cpu", 1, 2, 0)
    assert resolved(data__image_size=8, data__channels=3).context().image_shape == (3, 8, 8)


@pytest.mark.parametrize("key", ["time_steps", "data", "energy", "sampler", "buffer", "objective", "train"])
def test_what_has_no_default_is_required(key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        from_table({name: value for name, value in VALID.items() if name != key}, "x.toml", "x")
    assert all(path.split(".")[0] == key for path, _ in caught.value.problems)
    assert all("is required" in message or "needs `use`" in message for _, message in caught.value.problems)


@pytest.mark.parametrize("key", ["seed", "regularizers", "optimizer"])
def test_what_has_a_default_may_be_left_out(key: str) -> None:
    table = {name: value for name, value in VALID.items() if name != key}
    recipe = from_table(table, "x.toml", "x")
    assert recipe == from_table(recipe.to_table(), "x.toml", "x")


def test_recipes_and_options_cannot_be_changed() -> None:
    recipe = resolved()
    for target, name in (
        (recipe, "seed"),
        (recipe.train, "steps"),
        (recipe.sampler.options, "steps"),
        (recipe.energy, "kind"),
    ):
        with pytest.raises((AttributeError, TypeError, ValueError), match=r"cannot assign|frozen"):
            setattr(target, name, 3)
    assert isinstance(recipe.energy.options.channel_multipliers, tuple)
    assert isinstance(recipe.data.shards, tuple)


def test_a_table_given_in_python_is_as_strict_as_a_file() -> None:
    with pytest.raises(RecipeError, match=r"train\.steps +must be a whole number, not '6'"):
        recipes.load("digits", {"train.steps": "6"})
