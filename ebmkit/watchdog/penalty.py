"""The regularizer that a rollback may add to a recipe."""

from __future__ import annotations

from dataclasses import replace

from ebmkit.binder import Binder
from ebmkit.errors import Problem
from ebmkit.recipe import Part, Recipe
from ebmkit.registry import default_registry
from ebmkit.watchdog.options import WatchdogOptions


def penalty_part(recipe: Recipe) -> tuple[Part | None, list[Problem]]:
    """`watchdog.penalty` as a part, and what is wrong with it."""
    binder, key, table = Binder(default_registry()), "watchdog.penalty", recipe.watchdog.penalty
    found = binder.component("regularizer", table, key) if table else None
    if found is None:
        # The default may be of a plugin that somebody does without.
        default = WatchdogOptions().penalty
        return None, list(binder.problems) if table != default else []
    part = Part("regularizer", *found)
    if part.component.changes_state_dict:
        return None, [Problem(key, f"{part.name} changes the network, which is not possible during training")]
    return part, []


def add_penalty(recipe: Recipe) -> Recipe:
    """The recipe with `watchdog.penalty` among its regularizers."""
    part, _ = penalty_part(recipe)
    return recipe if part is None else replace(recipe, regularizers=(*recipe.regularizers, part))
