"""From a recipe to objects, and the checks that need more than one part of it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ebmkit import reachability
from ebmkit.blame import blamed_on, wrong
from ebmkit.engine.settings import engine_problems, is_plain
from ebmkit.errors import Problem, RecipeError
from ebmkit.interfaces import SweepBudget
from ebmkit.recipe import Part, Recipe
from ebmkit.watchdog.penalty import penalty_part

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from torch import nn

    from ebmkit.energy_model import EnergyModel
    from ebmkit.interfaces import Context, Regularizer


MAX_LEARNING_RATE = 1e4
"""Far above any that trains, and small enough that AdamW can compute with it."""

SHORTEST_RUN = 200
"""Runs of fewer steps try out something else than training, and are not warned of it."""


def cross_check(recipe: Recipe, source: str, world_size: int = 1) -> list[str]:
    """Warnings about a recipe; raises `RecipeError` for parts that cannot work together. Runs without torch."""
    context = recipe.context(world_size=world_size)
    problems: list[Problem] = []
    for path, part in recipe.parts.items():
        for message in problems_of(part, context):
            key, colon, text = message.partition(": ")
            if colon and (key == "use" or key in type(part.options).model_fields):
                problems.append(Problem(f"{path}.{key}", text))
            else:
                problems.append(Problem(path, message))
    batch, slots = recipe.train.batch_size, getattr(recipe.buffer.options, "size", None)
    if slots is not None and slots < batch:
        problems.append(Problem("buffer.size", f"must be at least train.batch_size ({batch}), not {slots}"))
    if batch % world_size:
        problems.append(Problem("train.batch_size", f"must be divisible by the {world_size} processes, not {batch}"))
    elif batch % (world_size * recipe.engine.accumulate):
        each = f"{world_size} x {recipe.engine.accumulate} (processes x engine.accumulate)"
        problems.append(Problem("train.batch_size", f"must be divisible by {each}, not {batch}"))
    problems += engine_problems(recipe.engine, world_size)
    problems += penalty_part(recipe)[1]
    if recipe.fast.channels_last == "on" and not is_plain(recipe.engine, world_size):
        problems.append(Problem("fast.channels_last", "is for the plain engine: DeepSpeed cannot take such weights"))
    rates = _learning_rates(recipe)
    if not all(0 <= rate <= MAX_LEARNING_RATE for rate in rates):
        message = f"must stay between 0 and {MAX_LEARNING_RATE:g}, but has values from {min(rates):g} to {max(rates):g}"
        problems.append(Problem("optimizer.learning_rate", message))
    structural = [part.name for part in recipe.regularizers if part.component.changes_state_dict]
    for name in sorted({name for name in structural if structural.count(name) > 1}):
        problems.append(Problem("regularizers", f"{name} changes the network and can be there only once"))
    trackers = [part.name for part in recipe.trackers]
    for name in sorted({name for name in trackers if trackers.count(name) > 1}):
        problems.append(Problem("trackers", f"{name} is there more than once and would write everything as often"))
    if not recipe.energy.component.twice_differentiable:
        for path, part in recipe.parts.items():
            if getattr(part.component, "needs_double_backward", False):
                message = f"{part.name} differentiates a gradient, which energy '{recipe.energy.name}' does not allow"
                problems.append(Problem(f"{path}.use", message))
    if problems:
        raise RecipeError(source, problems)
    warnings = (reachability_warning(recipe), _unbounded_warning(recipe), chain_warning(recipe))
    return [warning for warning in warnings if warning]


def reach_ratio(recipe: Recipe) -> float | None:
    """The recipe's reachability ratio, or None where the rule does not apply (no per-sample gradient bound)."""
    budget, bound = _sweep_budget(recipe), gradient_bound(recipe)
    if budget is None or bound is None:
        return None
    channels, height, width = recipe.data.shape
    return reachability.reach_ratio(budget.travel, budget.noise, channels * height * width, bound)


def _sweep_budget(recipe: Recipe) -> SweepBudget | None:
    sampler = recipe.sampler.component
    with blamed_on(sampler, "sweep_budget()"):
        budget = sampler.sweep_budget(recipe.sampler.options, recipe.context())
    if budget is None:
        return None
    if not (isinstance(budget, SweepBudget) and all(_is_number(n) and n >= 0 for n in budget[:2])):
        raise wrong(sampler, f"sweep_budget() must return None or a SweepBudget of numbers from 0, not {budget!r}")
    return budget


def gradient_bound(recipe: Recipe) -> float | None:
    """The least norm per sample that a regularizer keeps the energy's input gradient to, or None."""
    bounds: list[float] = []
    for part in recipe.regularizers:
        with blamed_on(part.component, "gradient_bound()"):
            bound = part.component.gradient_bound(part.options)
        if bound is None:
            continue
        if not (_is_number(bound) and bound > 0):
            raise wrong(part.component, f"gradient_bound() must return None or a number above 0, not {bound!r}")
        bounds.append(bound)
    return min(bounds, default=None)


def _learning_rates(recipe: Recipe) -> list[float]:
    """Those of a thousandth of the training each."""
    schedule = recipe.optimizer.learning_rate
    with blamed_on(schedule, "its call"):
        rates = [schedule(i / 1000) for i in range(1001)]
    for rate in rates:
        if not _is_number(rate):
            raise wrong(schedule, f"it must return a number, not {rate!r}")
    return rates


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unbounded_warning(recipe: Recipe) -> str | None:
    budget = _sweep_budget(recipe)
    if budget is None or not budget.needs_gradient_bound or gradient_bound(recipe) is not None:
        return None
    return (
        "reachability: sampler.step_size is chosen for a per-sample gradient norm of about 1, but no regularizer keeps "
        "to one; set a step size, or add a gradient penalty with a norm per sample"
    )


def reachability_warning(recipe: Recipe) -> str | None:
    """What to say about a recipe far from the reachability rule, or None."""
    ratio = reach_ratio(recipe)
    if ratio is None or reachability.LOWEST <= ratio <= reachability.HIGHEST:
        return None
    what = "cannot reach the data" if ratio < reachability.LOWEST else "will overshoot the data"
    more = "larger" if ratio < reachability.LOWEST else "smaller"
    return (
        f"reachability: under this penalty a sweep covers {ratio:.2f} times the way to the data (about 1 works), so it "
        f"{what}; use a {more} sampler.step_size, another number of steps or other noise (docs: method, reachability)"
    )


def chain_warning(recipe: Recipe) -> str | None:
    """What to say about a run that is over before a chain of its buffer is, or None."""
    component, train = recipe.buffer.component, recipe.train
    with blamed_on(component, "chain_length()"):
        length = component.chain_length(recipe.buffer.options, recipe.context(), train.batch_size)
    if length is None:
        return None
    if not (_is_number(length) and length >= 0):
        raise wrong(component, f"chain_length() must return None or a number from 0, not {length!r}")
    if length <= train.steps or train.steps < SHORTEST_RUN:
        return None
    return (
        f"buffer: a chain takes {length:,.0f} steps on average to the end of its sweep, and the run has "
        f"{train.steps:,}: most of those that it begins will not get there, and the network hardly sees its own "
        "samples; use a smaller buffer, a larger batch or more steps (docs: results)"
    )


def problems_of(part: Part, context: Context) -> list[str]:
    """What a part's component says is wrong with its options."""
    with blamed_on(part.component, "problems()"):
        told = part.component.problems(part.options, context)
    if not (isinstance(told, list | tuple) and all(isinstance(message, str) for message in told)):
        raise wrong(part.component, f"problems() must return a list of sentences, [] for none, not {told!r}")
    return list(told)


def build_part(part: Part, context: Context) -> Any:
    """A new instance of a part's component."""
    with blamed_on(part.component, "its constructor"):
        return part.build(context)


def build_regularizers(recipe: Recipe, context: Context) -> list[Regularizer]:
    """The recipe's regularizers, in its order."""
    return [build_part(part, context) for part in recipe.regularizers]


def build_energy(recipe: Recipe, context: Context, regularizers: list[Regularizer]) -> EnergyModel:
    """The energy network on the context's device, prepared by the regularizers; the same weights for the same seed."""
    import torch

    from ebmkit.energy_model import EnergyModel
    from ebmkit.noise import stream_seed

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(recipe.seed, "weights"))
        energy = build_part(recipe.energy, context)
        with blamed_on(energy, "build()"):
            model = energy.build()
        if not isinstance(model, EnergyModel):
            raise wrong(energy, f"build() must return an ebmkit.EnergyModel, not {type(model).__name__}")
        for regularizer in regularizers:
            with blamed_on(regularizer, "prepare()"):
                regularizer.prepare(model)
    return model.to(context.device)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and parameters that need no gradient, for the time of sampling; both restored after."""
    training = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode
        for parameter in trainable:
            parameter.requires_grad_(True)
