"""Every table binds or is refused in sentences for people; what binds is the same after writing and reading."""

from __future__ import annotations

import copy
import json
import tomllib
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator

from ebmkit import BaseOptions, RecipeError, Schedule, ScheduleOption
from ebmkit import recipe as recipes
from ebmkit.binder import Binder
from ebmkit.errors import Problem
from ebmkit.pipeline import cross_check
from ebmkit.plugins import LoadedPlugin, Registered
from ebmkit.recipe import KEYS, Recipe
from ebmkit.registry import Registry, default_registry
from recipe_tables import COMPONENTS, KEY, SCALARS, VALID, VALUES, curves, mutants, options, part, right_tables

ANYTHING = VALUES | curves(SCALARS)
PYDANTIC = ("Input", "Value error", "validation", "type=")


def bound_or_refused(table: dict[str, Any]) -> Recipe | RecipeError:
    before = repr(table)
    try:
        return recipes.from_table(table, "x.toml", "x")
    except RecipeError as error:
        return error
    finally:
        assert repr(table) == before, "the table that was given is left as it was"


def checked(recipe: Recipe) -> list[str] | RecipeError:
    try:
        return cross_check(recipe, "x.toml")
    except RecipeError as error:
        return error


def assert_for_people(error: RecipeError) -> None:
    assert error.problems
    assert len(set(error.problems)) == len(error.problems), "nothing is said twice"
    for path, message in error.problems:
        assert path
        assert message
        assert "\n" not in path + message
        # Our own words before what is quoted of the table, not pydantic's.
        assert not any(word in message.partition(", not ")[0] for word in PYDANTIC)
        assert not message[0].isupper()


class Options(BaseOptions):
    """Types that no first-party part has in this mixture."""

    odd: int = 1
    number: Literal[1, 2, 3] = 1
    word: Literal["left"] = "left"
    several: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=3)] = (1, 1)
    extras: dict[str, int] = Field(default_factory=dict)
    curve_or_none: ScheduleOption | None = None

    @field_validator("odd")
    @classmethod
    def _is_odd(cls, odd: int) -> int:
        if odd % 2 == 0:
            raise ValueError(f"must be odd, not {odd}")
        return odd


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    # What the properties found.
    ({"number": 2**64}, "number", "must be 1, 2 or 3, not 18446744073709551616"),
    ({"number": True}, "number", "must be 1, 2 or 3, not true"),
    ({"number": 4}, "number", "must be 1, 2 or 3, not 4"),
    ({"word": 10**400}, "word", "must be 'left', not a number of hundreds of digits"),
    ({"word": "right"}, "word", "must be 'left', not 'right'"),
    ({"several": [0, 0]}, "several.0", "must be at least 1, not 0"),
    ({"several": [1]}, "several", "must have at least 2 items, not [1]"),
    ({"odd": 2}, "odd", "must be odd, not 2"),
    ({"odd": 2**63 + 1}, "odd", "must fit into 64 bits, as in TOML, not 9223372036854775809"),
    ({"extras": {"a": 2**63}}, "extras", "must fit into 64 bits, as in TOML, not { a = 9223372036854775808 }"),
    ({"curve_or_none": {"use": "geometric", "end": 1}}, "curve_or_none.start", "is required"),
]


@pytest.mark.parametrize(("values", "path", "message"), FAULTS, ids=[path + "-" + text for _, path, text in FAULTS])
def test_faults_of_rare_types(values: dict[str, Any], path: str, message: str) -> None:
    binder = Binder(default_registry())
    assert binder.options(Options, values, "part") is None
    assert binder.problems[0] == Problem(f"part.{path}", message)
    assert len(binder.problems) == (2 if values == {"several": [0, 0]} else 1)


def test_a_schedule_of_a_plugin_binds_and_leaves_out_what_is_none() -> None:
    class Steps(Schedule):
        """Steps."""

        name = "steps"

        class Options(BaseOptions):
            """Options."""

            values: tuple[float, ...]
            hold: float | None = None

        def __call__(self, progress: float) -> float:
            return float(self.options.values[0])

    registered = Registered("schedule", "steps", Steps, "mine", "mine", "1")
    binder = Binder(Registry([LoadedPlugin("mine", ModuleType("mine"), (registered,))]))
    bound = binder.options(Options, {"curve_or_none": {"use": "steps", "values": [0.5, 1]}}, "part")
    assert binder.problems == []
    assert bound is not None
    assert bound.model_dump(mode="json")["curve_or_none"] == {"use": "steps", "values": [0.5, 1.0]}
    assert binder.options(Options, {"curve_or_none": 0.5}, "part") is None, "nobody provides 'constant' there"
    assert binder.problems == [Problem("part.curve_or_none", "unknown schedule 'constant'; installed: steps")]


@settings(max_examples=80, deadline=None)
@given(right_tables())
def test_right_tables_bind_and_come_back(table: dict[str, Any]) -> None:
    recipe = bound_or_refused(table)
    assert isinstance(recipe, Recipe), recipe
    assert recipes.from_table(recipe.to_table(), "again", "x") == recipe
    assert recipes.from_table(tomllib.loads(recipe.to_toml()), "again", "x") == recipe
    assert recipe.to_table() == recipes.from_table(recipe.to_table(), "again", "x").to_table()


@settings(max_examples=60, deadline=None)
@given(right_tables(), st.integers(1, 30), st.integers(1, 30))
def test_recipes_that_bind_are_checked_as_a_whole(table: dict[str, Any], time_steps: int, steps: int) -> None:
    recipe = recipes.from_table(table, "x.toml", "x", {"time_steps": time_steps, "sampler.steps": steps})
    result = checked(recipe)
    if isinstance(result, RecipeError):
        assert_for_people(result)
        assert {path.split(".")[0] for path, _ in result.problems} <= {*KEYS}
    else:
        assert not any("nan" in warning for warning in result)


@settings(max_examples=100, deadline=None)
@given(mutants())
def test_changed_tables_bind_or_are_refused(table: dict[str, Any]) -> None:
    result = bound_or_refused(table)
    if isinstance(result, RecipeError):
        assert_for_people(result)
    else:
        assert recipes.from_table(tomllib.loads(result.to_toml()), "again", "x") == result


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEY, ANYTHING | st.dictionaries(KEY, VALUES, max_size=5), max_size=8))
def test_tables_of_anything_are_refused(table: dict[str, Any]) -> None:
    result = bound_or_refused(table)
    assert isinstance(result, RecipeError)
    assert_for_people(result)


@settings(max_examples=100, deadline=None)
@given(st.one_of([part(component, ANYTHING) for component in COMPONENTS]))
def test_complaints_about_a_part_name_its_own_keys(table: dict[str, Any]) -> None:
    component = next(c for c in COMPONENTS if c.name == table["use"])
    binder = Binder(default_registry())
    bound = binder.component(component.kind, table, "part")
    assert (bound is None) == bool(binder.problems)
    assert {problem.path.split(".")[1] for problem in binder.problems} <= component.Options.model_fields.keys()
    if binder.problems:
        assert_for_people(RecipeError("x", binder.problems))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(COMPONENTS).flatmap(lambda c: st.tuples(st.just(c), options(c.Options))))
def test_options_of_a_component_are_frozen_and_written_as_json(drawn: tuple[Any, dict[str, Any]]) -> None:
    component, table = drawn
    bound = Binder(default_registry()).options(component.Options, table, "part")
    assert bound is not None
    assert bound == component.Options(**bound.model_dump(mode="python"))
    written = json.loads(json.dumps({k: v for k, v in bound.model_dump(mode="json").items() if v is not None}))
    assert Binder(default_registry()).options(component.Options, written, "part") == bound


def test_the_table_that_the_properties_change_is_right() -> None:
    before = copy.deepcopy(VALID)
    recipe = bound_or_refused(VALID)
    assert isinstance(recipe, Recipe)
    assert recipe.sampler.options.clamp == 2.0
    assert before == VALID
