"""Checks that need more than one part of a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebmkit import BufferedObjective, Energy, EnergyModel, Pairs, Term
from ebmkit.errors import RecipeError
from ebmkit.pipeline import cross_check
from ebmkit.recipe import Part, Recipe
from run_helpers import tiny_recipe


class Once(Energy):
    """An energy that can be differentiated once."""

    name = "once"
    twice_differentiable = False

    def build(self) -> EnergyModel:
        raise NotImplementedError


class Scores(BufferedObjective):
    """An objective that differentiates a gradient."""

    name = "scores"
    needs_double_backward = True

    def loss(self, pairs: Pairs) -> Term:
        raise NotImplementedError


def once(**changes: Any) -> Recipe:
    """A recipe whose energy can be differentiated once."""
    return replace(tiny_recipe("digits", **changes), energy=Part("energy", Once, Once.Options()))


def test_a_penalty_on_gradients_needs_an_energy_that_allows_it() -> None:
    with pytest.raises(RecipeError) as error:
        cross_check(once(), "mine.toml")
    (problem,) = error.value.problems
    assert problem.path == "regularizers.0.use"
    assert problem.message == "wgan_lp differentiates a gradient, which energy 'once' does not allow"


def test_so_does_an_objective() -> None:
    recipe = replace(once(regularizers=[]), objective=Part("objective", Scores, Scores.Options()))
    with pytest.raises(RecipeError, match=r"objective\.use +scores differentiates a gradient"):
        cross_check(recipe, "mine.toml")


def test_what_differentiates_once_goes_with_it() -> None:
    cross_check(once(regularizers=[{"use": "energy_l2"}], sampler={"use": "langevin", "step_size": 0.5}), "mine.toml")


def test_a_tracker_is_there_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"trackers +csv is there more than once and would write everything as often"):
        cross_check(tiny_recipe("digits", trackers=[{"use": "csv"}, {"use": "csv"}]), "mine.toml")
    cross_check(tiny_recipe("digits", trackers=[{"use": "csv"}, {"use": "tensorboard"}]), "mine.toml")
