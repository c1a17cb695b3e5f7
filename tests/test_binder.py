"""Binding: any table either binds or gives a `RecipeError` that names every fault at its dotted path."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ebmkit import recipe as recipes
from ebmkit.binder import Binder, freeze, quote, show
from ebmkit.errors import RecipeError
from ebmkit.interfaces import BaseOptions
from ebmkit.recipe import Recipe
from ebmkit.registry import default_registry
from ebmkit.schedule_option import takes_schedule

DIGITS = tomllib.loads((Path(__file__).parent.parent / "recipes" / "digits.toml").read_text(encoding="utf-8"))


def bind(**set_values: Any) -> Recipe:
    return recipes.from_table(DIGITS, "x.toml", "x", {key.replace("__", "."): v for key, v in set_values.items()})


def problems(**set_values: Any) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        bind(**set_values)
    found = dict(caught.value.problems)
    assert len(found) == len(caught.value.problems), "one problem for each key"
    return found


@pytest.mark.parametrize(
    ("key", "value", "path", "message"),
    [
        # Names.
        ("sampler__stesp", 3, "sampler.stesp", "unknown option; did you mean 'steps'?"),
        ("sampler__zzz", 3, "sampler.zzz", "unknown option"),
        ("smapler", {}, "smapler", "unknown key; did you mean 'sampler'?"),
        ("sampler__use", "langevn", "sampler.use", "unknown sampler 'langevn'; did you mean 'langevin'?"),
        ("sampler__use", 3, "sampler.use", "must be text, not 3; installed: langevin"),
        ("buffer", {}, "buffer", "needs `use`, the name of a buffer; installed: cyclic, fresh, persistent"),
        ("energy", {}, "energy", "needs `use`, the name of an energy; installed: resnet, timm, unet"),
        # Types.
        ("sampler__steps", "3", "sampler.steps", "must be a whole number, not '3'"),
        ("sampler__steps", 3.0, "sampler.steps", "must be a whole number, not 3.0"),
        ("sampler__steps", True, "sampler.steps", "must be a whole number, not true"),
        ("time_steps", True, "time_steps", "must be a whole number, not true"),
        ("data__channels", True, "data.channels", "must be 1 or 3, not true"),
        ("data__channels", 3.0, "data.channels", "must be 1 or 3, not 3.0"),
        ("data__channels", 2, "data.channels", "must be 1 or 3, not 2"),
        ("data__horizontal_flip", 1, "data.horizontal_flip", "must be true or false, not 1"),
        ("data__cache", "disk", "data.cache", "must be 'off' or 'device', not 'disk'"),
        ("data__make", 3, "data.make", "must be text, not 3"),
        ("optimizer__eps", "small", "optimizer.eps", "must be a number, not 'small'"),
        ("optimizer__eps", False, "optimizer.eps", "must be a number, not false"),
        ("optimizer__clip_grad_norm", [], "optimizer.clip_grad_norm", "must be a number, not []"),
        ("optimizer__betas", 0.9, "optimizer.betas", "must be a list, not 0.9"),
        ("train__steps", datetime.date(2020, 1, 2), "train.steps", "must be a whole number, not 2020-01-02"),
        ("train", 3, "train", "must be a table, not 3"),
        ("sampler", "langevin", "sampler", "must be a table, not 'langevin'"),
        ("regularizers", {"use": "wgan_lp"}, "regularizers", "must be a list of tables ([[regularizers]]), not { use"),
        ("regularizers", ["wgan_lp"], "regularizers.0", "must be a table, not 'wgan_lp'"),
        # Bounds.
        ("sampler__steps", 0, "sampler.steps", "must be at least 1, not 0"),
        ("sampler__clamp", 0, "sampler.clamp", "must be greater than 0, not 0"),
        ("train__ema_decay", 1.0, "train.ema_decay", "must be less than 1, not 1.0"),
        ("optimizer__betas", [0.9, 1.5], "optimizer.betas.1", "must be less than 1, not 1.5"),
        ("optimizer__betas", [0.9], "optimizer.betas", "must have more than 1 item, not [0.9]"),
        ("optimizer__eps", float("nan"), "optimizer.eps", "must be a finite number, not nan"),
        ("optimizer__eps", 10**400, "optimizer.eps", "must be a finite number, not a number of hundreds of digits"),
        ("seed", -1, "seed", "must be between 0 and 9223372036854775807, not -1"),
        ("time_steps", 0, "time_steps", "must be between 1 and 100000, not 0"),
        # Options of several types.
        ("sampler__step_size", "fast", "sampler.step_size", "must be 'auto' or a number or a schedule table such as {"),
        ("sampler__step_size", True, "sampler.step_size", "must be 'auto' or a number or a schedule table such as {"),
        ("data__shards", 3, "data.shards", "must be a list or text, not 3"),
        ("data__shards", [], "data.shards", "must have at least 1 item, not []"),
        ("data__shards", "", "data.shards", "must have at least 1 character, not ''"),
        ("data__shards", ["a", 3], "data.shards.1", "must be text, not 3"),
        ("data__image_size", "x", "data.image_size", "must be a whole number or a list, not 'x'"),
        ("data__image_size", 0, "data.image_size", "must be at least 1, not 0"),
        ("data__image_size", [8, "y"], "data.image_size.1", "must be a whole number, not 'y'"),
        ("data__image_size", [], "data.image_size", "must have more than 0 items, not []"),
        ("data__image_size", [8], "data.image_size", "must have more than 1 item, not [8]"),
        ("data__image_size", [8, 8, 8], "data.image_size", "must have at most 2 items, not [8, 8, 8]"),
        # Schedules.
        ("sampler__noise", "low", "sampler.noise", "must be a number or a schedule table such as { use = 'linear', st"),
        ("sampler__noise", False, "sampler.noise", "must be a number or a schedule table such as {"),
        ("sampler__noise", float("inf"), "sampler.noise", "must be a finite number, not inf"),
        ("sampler__noise", {"start": 1}, "sampler.noise", "needs `use`, the name of a schedule; installed: constant, "),
        ("sampler__noise", {"use": "liner"}, "sampler.noise.use", "unknown schedule 'liner'; did you mean 'linear'?"),
        ("sampler__noise", {"use": "linear"}, "sampler.noise.start", "is required"),
        ("sampler__noise__ned", 1, "sampler.noise.ned", "unknown option; did you mean 'end'?"),
        ("sampler__noise__start", "x", "sampler.noise.start", "must be a number, not 'x'"),
        ("optimizer__learning_rate", {"use": "geometric", "start": 1.0, "end": 0.0}, "optimizer.learning_rate.end",
         "must be greater than 0, not 0.0"),
    ],
)  # fmt: skip
def test_a_fault_is_told_at_its_path(key: str, value: object, path: str, message: str) -> None:
    found = problems(**{key: value})
    assert list(found) == [path]
    assert found[path].startswith(message)
    assert len(found[path]) < 200


def test_numbers_too_long_to_write_out_are_told_too() -> None:
    found = problems(sampler__steps=10**5000)
    assert found == {"sampler.steps": "must be at most 100000, not a number of hundreds of digits"}


def test_all_problems_are_told_at_once_each_on_its_line() -> None:
    table = recipes.overriding.apply(
        DIGITS,
        {
            "sampler.noise": {"use": "linear", "start": "x", "emd": 1},
            "sampler.stpes": 3,
            "energy.use": "unett",
            "buffer.size": -1,
            "train.steps": 1.5,
            "regularizers": [{"use": "wgan_lp", "norm": "image"}, {"use": "wgan_lp"}, {}],
            "colour": "red",
        },
    )
    del table["time_steps"], table["data"]["shards"]
    with pytest.raises(RecipeError) as caught:
        recipes.from_table(table, "my.toml", "my")
    lines = str(caught.value).splitlines()
    assert lines[0] == "my.toml: 11 problems"
    paths = [line.split()[0] for line in lines[1:]]
    assert paths == [problem.path for problem in caught.value.problems]
    assert sorted(paths) == sorted(
        [
            "colour",
            "time_steps",
            "data.shards",
            "train.steps",
            "energy.use",
            "sampler.noise.start",
            "sampler.noise.emd",
            "sampler.stpes",
            "buffer.size",
            "regularizers.0.norm",
            "regularizers.2",
        ]
    )
    assert caught.value.exit_code == 2


def test_missing_sections_name_what_they_need() -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.from_table({}, "x.toml", "x")
    found = dict(caught.value.problems)
    assert found["time_steps"] == found["data.shards"] == found["train.batch_size"] == "is required"
    assert {"energy", "sampler", "buffer", "objective"} < set(found)


class Mixed(BaseOptions):
    """Options that no first-party part has."""

    many: tuple[int | str, ...] = ()
    flag: bool | int = False
    nested: dict[str, int] = {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"many": [1, "a", 1.5]}, {"p.many.2": "must be a whole number or text, not 1.5"}),
        ({"flag": "x"}, {"p.flag": "must be true or false or a whole number, not 'x'"}),
        ({"nested": {"a": "b"}}, {"p.nested.a": "must be a whole number, not 'b'"}),
        ({"a\nb": 1}, {"p.'a\\nb'": "unknown option"}),
        ({"many": [1, "a"], "flag": 2, "nested": {"use": 1}}, {}),
    ],
)
def test_a_plugin_s_own_types_are_explained_too(values: dict[str, Any], expected: dict[str, str]) -> None:
    binder = Binder(default_registry())
    options = binder.options(Mixed, values, "p")
    assert dict(binder.problems) == expected
    assert (options is None) == bool(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ((1, "a", False), "[1, 'a', false]"),
        ({"use": "linear", "a b": [1.5]}, "{ use = 'linear', 'a b' = [1.5] }"),
        ({}, "{}"),
        (datetime.time(1, 2), "01:02:00"),
        ("x" * 100, "'" + "x" * 56 + "..."),
    ],
)
def test_values_are_shown_as_toml_has_them_on_one_short_line(value: object, text: str) -> None:
    assert show(value) == text


def test_keys_are_quoted_where_a_dotted_path_would_lie() -> None:
    assert quote("batch_size-2") == "batch_size-2"
    assert quote("a.b") == "'a.b'"
    assert quote("") == "''"
    assert len(quote("k" * 1000)) <= 60


def test_frozen_values_hold_no_lists() -> None:
    assert freeze([1, [2, {"a": [3]}]]) == (1, (2, {"a": (3,)}))


def test_schedule_options_are_known_alone_and_in_unions() -> None:
    fields = bind().sampler.component.Options.model_fields
    assert takes_schedule(fields["step_size"])
    assert takes_schedule(fields["noise"])
    assert not takes_schedule(fields["clamp"])
