"""A recipe's sampler with its step size multiplied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ebmkit.blame import blamed_on
from ebmkit.errors import BadInput
from ebmkit.interfaces import Sampler, Schedule
from ebmkit.model import Model
from ebmkit.pipeline import build_part
from ebmkit.recipe import Recipe
from ebmkit.registry import default_registry
from ebmkit.schedule_option import CONSTANT

OPTION = "step_size"
"""The option of samplers that a factor multiplies: a number, a schedule, or a word for a constant of its choice."""


class Multiplied(Schedule):
    """Another schedule, times a factor."""

    name = "multiplied"

    def __init__(self, schedule: Schedule, factor: float) -> None:
        super().__init__(schedule.options)
        self.schedule, self.factor = schedule, factor

    def __call__(self, progress: float) -> float:
        """The other schedule's value there, times the factor."""
        return self.factor * self.schedule(progress)


def sampler_times(model: Model, factor: float) -> Sampler:
    """The recipe's sampler with `factor` times its step size; raises `BadInput` for a sampler that has none."""
    part, context = model.recipe.sampler, model.recipe.context(model.device)
    if factor == 1:
        sampler: Sampler = build_part(part, context)
        return sampler
    options = part.options.model_copy(update={OPTION: Multiplied(_step_size(model.recipe), factor)})
    scaled: Sampler = build_part(replace(part, options=options), context)
    return scaled


def mean_step_size(recipe: Recipe) -> float | None:
    """The mean of eta over a sweep's T*K steps, by the sampler's own budget; None where it tells of none."""
    part, context = recipe.sampler, recipe.context()
    with blamed_on(part.component, "sweep_budget()"):
        budget = part.component.sweep_budget(part.options, context)
    with blamed_on(part.component, "steps"):
        steps = part.build(context).steps
    return None if budget is None else 2 * float(budget.travel) / (recipe.time_steps * steps)


def _step_size(recipe: Recipe) -> Schedule:
    value: Any = getattr(recipe.sampler.options, OPTION, None)
    if isinstance(value, Schedule):
        return value
    mean = mean_step_size(recipe) if value is not None else None
    if isinstance(value, int | float):
        mean = float(value)
    if mean is None:
        raise BadInput(f"the sampler '{recipe.sampler.name}' has no {OPTION} that could be multiplied")
    component = default_registry().component("schedule", CONSTANT)
    constant: Schedule = component(component.Options(value=mean))
    return constant
