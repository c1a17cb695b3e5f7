"""The runs of a sweep: every point with every seed, bound and checked before the first begins."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ebmkit import recipe as recipes
from ebmkit.errors import BadInput, Problem, RecipeError
from ebmkit.pipeline import cross_check
from ebmkit.printable import one_line
from ebmkit.recipe import Recipe
from ebmkit.sweeps.file import Point, Sweep

LONGEST_NAME = 120
RESERVED = ("recipes", "results", "logs")
"""Folders of the sweep itself."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep: its folder's name, the values in which it differs from others, and its whole recipe."""

    name: str
    values: Mapping[str, Any]
    seed: int
    recipe: Recipe

    @property
    def gradients(self) -> int | None:
        """Gradient evaluations for an image, T*K, where the sampler has a number of steps."""
        steps = getattr(self.recipe.sampler.options, "steps", None)
        return self.recipe.time_steps * steps if isinstance(steps, int) else None


def plan(sweep: Sweep, say: Callable[[str], None] = lambda message: None) -> list[PlannedRun]:
    """Every run of the sweep; raises `RecipeError` with the problems of all points. Imports no torch.

    Warnings, such as a point that cannot reach the data, are told to `say`.
    """
    try:
        source = recipes.find(sweep.recipe)
    except BadInput as error:
        raise BadInput(f"{sweep.source}: its base: {error}") from error
    table = recipes.read_toml(source)
    problems: list[Problem] = []
    runs: list[PlannedRun] = []
    warned: Point | None = None
    labels = short_keys({key for point in sweep.points for key in point.values})
    for point in sweep.points:
        for seed in sweep.seeds or (None,):
            own = {} if seed is None else {"seed": seed}
            name = point_name(point, labels, seed if len(sweep.seeds or ()) > 1 or not point.values else None)
            try:
                recipe = recipes.from_table(table, sweep.recipe, name, {**sweep.common, **point.values, **own})
                warnings = cross_check(recipe, sweep.recipe)
            except RecipeError as error:
                problems += [
                    Problem(f"{one_line(name)}: {problem.path}", problem.message) for problem in error.problems
                ]
                # The other seeds have the same.
                break
            except BadInput as error:
                problems.append(Problem(one_line(name), str(error)))
                break
            if point is not warned:
                warned = point
                for warning in warnings:
                    say(f"warning: {name}: {warning}")
            runs.append(PlannedRun(name, point.values, recipe.seed, recipe))
    if problems:
        raise RecipeError(sweep.source, problems)
    return _with_names_of_their_own(runs)


def short_keys(keys: set[str]) -> dict[str, str]:
    """Dotted keys without their first part, where that leaves them different: `sampler.step_size` as `step_size`."""
    short = {key: key.partition(".")[2] or key for key in keys}
    return {key: text if list(short.values()).count(text) == 1 else key for key, text in short.items()}


def point_name(point: Point, labels: Mapping[str, str], seed: int | None) -> str:
    """A folder's name that a person can read: `step_size-1.5_seed-0`."""
    parts = [f"{labels[key]}-{value_text(value)}" for key, value in point.values.items()]
    words = [point.name] if point.name is not None else parts
    words += [] if seed is None else [f"seed-{seed}"]
    # No '=': the command line would take a folder of that name for a --set value.
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", "_".join(words)).strip(".-") or "base"


def value_text(value: Any) -> str:
    """A value in few characters, for names and tables."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "-".join(value_text(item) for item in value.values())
    if isinstance(value, list | tuple):
        return "-".join(map(value_text, value))
    return str(value)


def _with_names_of_their_own(runs: list[PlannedRun]) -> list[PlannedRun]:
    names = Counter(run.name for run in runs)
    found: list[PlannedRun] = []
    for run in runs:
        name = run.name
        if len(name) > LONGEST_NAME or names[name] > 1 or name in RESERVED:
            digest = hashlib.sha256(json.dumps([run.values, run.seed], default=str).encode()).hexdigest()[:8]
            name = f"{name[:LONGEST_NAME]}-{digest}"
        found.append(replace(run, name=name, recipe=replace(run.recipe, name=name)))
    return found
