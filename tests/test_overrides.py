"""`--set key=value`: what is typed, what it sets, and what is refused."""

from __future__ import annotations

import copy
import tomllib
from datetime import date
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmkit import BadInput, RecipeError
from ebmkit import recipe as recipes
from ebmkit.overrides import apply, parse, parse_value
from recipe_tables import VALID, VALUES


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-1_000", -1000),
        ("0x10", 16),
        ("2e-4", 2e-4),
        ("true", True),
        ("False", "False"),
        ("resnet", "resnet"),
        ('"5"', "5"),
        ("'a b'", "a b"),
        ("[0.9, 0.99]", [0.9, 0.99]),
        ("{ use = 'linear', start = 1 }", {"use": "linear", "start": 1}),
        ("2020-01-02", date(2020, 1, 2)),
        ("shards/train-{000000..000009}.tar", "shards/train-{000000..000009}.tar"),
        ("pipe:cat a.tar", "pipe:cat a.tar"),
        ("cuda:1", "cuda:1"),
        ("", ""),
        ("1 # one", 1),
        ("[1, 2", "[1, 2"),
        ("1\nb = 2", "1\nb = 2"),
        ("[" * 5000, "[" * 5000),
        ("9" * 5000, "9" * 5000),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_are_toml_or_text(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_assignments_are_split_at_the_first_equals_sign() -> None:
    assert parse([]) == {}
    assert parse(["a.b=1", "c = x=y ", "d="]) == {"a.b": 1, "c": "x=y", "d": ""}


def test_a_key_given_several_times_is_a_list() -> None:
    """A shell makes two words of `--set data.shards=train-{0,1}.tar`."""
    assert parse(["data.shards=train-0.tar", "a=1", "data.shards=train-1.tar"]) == {
        "data.shards": ["train-0.tar", "train-1.tar"],
        "a": 1,
    }


@pytest.mark.parametrize("assignment", ["", "a", "=1", ".a=1", "a.=1", "a..b=1", "--run-dir"])
def test_what_is_no_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(["a=1", assignment])
    assert str(caught.value) == f"--set {assignment}: write key=value, for example --set sampler.steps=5"


CHANGES: list[tuple[dict[str, Any], tuple[Any, ...], Any]] = [
    ({"seed": 7}, ("seed",), 7),
    ({"sampler.steps": 9}, ("sampler", "steps"), 9),
    ({"sampler": {"use": "x"}}, ("sampler",), {"use": "x"}),
    ({"new.table.key": 1}, ("new", "table"), {"key": 1}),
    ({"sampler.noise.start": 0.5}, ("sampler", "noise"), {"use": "linear", "start": 0.5}),
    ({"sampler.noise": 0.5}, ("sampler", "noise"), 0.5),
    # A number gives way to a table.
    ({"sampler.clamp.use": "linear", "sampler.clamp.start": 1}, ("sampler", "clamp"), {"use": "linear", "start": 1}),
    ({"sampler.steps.a.b": 1}, ("sampler", "steps"), {"a": {"b": 1}}),
    ({"optimizer.betas.0.use": "linear"}, ("optimizer", "betas"), [{"use": "linear"}, 0.9]),
    # Items of lists, by index or by name.
    ({"regularizers.0.weight": 3}, ("regularizers", 0), {"use": "wgan_lp", "weight": 3}),
    ({"regularizers.wgan_lp.weight": 3}, ("regularizers", 0), {"use": "wgan_lp", "weight": 3}),
    ({"regularizers.spectral_norm.a": 3}, ("regularizers", 1), {"use": "spectral_norm", "a": 3}),
    ({"regularizers.1": {"use": "energy_l2"}}, ("regularizers", 1), {"use": "energy_l2"}),
    ({"optimizer.betas.1": 0.5}, ("optimizer", "betas"), [0.5, 0.5]),
    ({"regularizers": []}, ("regularizers",), []),
    # Another part begins without the options of the old one; the same part keeps its own.
    ({"energy.use": "resnet"}, ("energy",), {"use": "resnet"}),
    ({"energy.use": "unet"}, ("energy",), VALID["energy"]),
    ({"energy.channels": 16, "energy.use": "resnet"}, ("energy",), {"use": "resnet", "channels": 16}),
    ({"regularizers.0.a": 2, "regularizers.0.use": "wgan_gp"}, ("regularizers", 0), {"use": "wgan_gp", "a": 2}),
    ({"sampler.noise.use": "cosine"}, ("sampler", "noise"), {"use": "cosine"}),
    # A part and its options in any order.
    ({"sampler.steps": 9, "sampler": {"use": "langevin"}}, ("sampler",), {"use": "langevin", "steps": 9}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "place", "value"), CHANGES, ids=[", ".join(c) for c, _, _ in CHANGES])
def test_a_dotted_key_changes_its_place_and_no_other(
    changes: dict[str, Any], place: tuple[Any, ...], value: object
) -> None:
    before, given_changes = copy.deepcopy(VALID), copy.deepcopy(changes)
    result = apply(VALID, changes)
    assert before == VALID, "the recipe's table is left as it was"
    assert changes == given_changes
    node: Any = result
    for key in place:
        node = node[key]
    assert node == value
    assert {key: item for key, item in result.items() if key != place[0]} == {
        key: item for key, item in VALID.items() if key != place[0]
    }
    backwards = dict(reversed(changes.items()))
    assert apply(VALID, backwards) == result, "the order makes no difference"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("regularizers.2.weight", "--set regularizers.2: the list has no '2'; it has 0 (wgan_lp), 1 (spectral_norm)"),
        (
            "regularizers.-1.weight",
            "--set regularizers.-1: the list has no '-1'; it has 0 (wgan_lp), 1 (spectral_norm)",
        ),
        ("regularizers.wgan_gp", "--set regularizers.wgan_gp: the list has no 'wgan_gp'; it has 0 (wgan_lp), "),
        ("optimizer.betas.2", "--set optimizer.betas.2: the list has no '2'; it has 0 (0.5), 1 (0.9)"),
        ("optimizer.betas.²", "the list has no '²'"),
    ],
)
def test_items_that_a_list_does_not_have_are_refused(key: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        apply(VALID, {key: 1})
    assert message in str(caught.value)


def test_an_empty_list_says_so() -> None:
    with pytest.raises(BadInput, match=r"the list has no '0'; it is empty"):
        apply({"regularizers": []}, {"regularizers.0.use": "wgan_lp"})


def test_the_binder_types_what_is_set() -> None:
    recipe = recipes.from_table(VALID, "x", "x", parse(["sampler.steps=5", "sampler.noise=0.25", "energy.use=resnet"]))
    assert recipe.sampler.options.steps == 5
    assert recipe.sampler.options.noise(0.5) == 0.25
    assert recipe.energy.name == "resnet"
    assert recipe.energy.options == recipe.energy.component.Options()
    with pytest.raises(RecipeError) as caught:
        recipes.from_table(VALID, "x", "x", parse(["sampler.steps=5.0", "trian.steps=1", "train.stepz=1"]))
    assert [problem.path for problem in caught.value.problems] == ["trian", "train.stepz", "sampler.steps"]


def test_lists_of_the_table_are_not_shared() -> None:
    table: dict[str, Any] = {"a": {"b": [1, [2]]}}
    value = [3]
    result = apply(table, {"c": value})
    result["a"]["b"][1].append(4)
    result["c"].append(5)
    assert table == {"a": {"b": [1, [2]]}}
    assert value == [3]


PLAIN_KEYS = st.lists(
    st.sampled_from(["a", "b", "use", "0", "wgan_lp", "regularizers", "sampler", "noise"]), min_size=1
)


def applied(changes: dict[str, Any]) -> dict[str, Any] | BadInput:
    try:
        return apply(VALID, changes)
    except BadInput as error:
        return error


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(PLAIN_KEYS.map(".".join), VALUES, max_size=4))
def test_any_overrides_apply_or_are_bad_input(changes: dict[str, Any]) -> None:
    result = applied(changes)
    if isinstance(result, BadInput):
        assert str(result).startswith("--set ")
        assert "\n" not in str(result)
    else:
        assert set(result) == {*VALID, *(key.partition(".")[0] for key in changes)}


TOML_VALUES = st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=9)


@settings(max_examples=80, deadline=None)
@given(TOML_VALUES | st.lists(TOML_VALUES, max_size=3))
def test_what_toml_writes_is_read_back(value: object) -> None:
    text = tomli_w.dumps({"key": value}).partition(" = ")[2].strip()
    assert tomllib.loads(f"key = {text}")["key"] == value
    assert parse([f"a.b={text}"]) == {"a.b": value}


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_some_value(text: str) -> None:
    parsed = parse_value(text)
    assert isinstance(parsed, str) <= (parsed == text or text.strip()[:1] in "'\"")
