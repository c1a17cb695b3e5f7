"""`ebmkit tune`: short runs, one after the other, until the step size fits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebmkit import __version__, pipeline
from ebmkit import recipe as recipes
from ebmkit.errors import BadInput, TrainingFailed
from ebmkit.recipe import Recipe
from ebmkit.running import require_data
from ebmkit.tuning.rule import HIGHEST, LOWEST, Trial, best, next_step_size, rounded
from ebmkit.tuning.writing import with_step_size
from ebmkit.view import View

DEPENDS = ("time_steps", "seed", "sampler", "regularizers", "data.image_size", "data.channels")
"""Keys on which the step size depends, or which the trials set: changed in the recipe, not for the trials alone."""


@dataclass(frozen=True)
class TuneOutcome:
    """What was tried, which trial was taken, whether it fits, and the new recipe."""

    recipe: Path
    trials: tuple[Trial, ...]
    best: Trial
    reason: str
    """Why the search ended."""


@dataclass(frozen=True)
class Limits:
    """How much a search may cost: trials, updates and seeds of each, images that are compared, and seconds."""

    trials: int = 6
    steps: int = 300
    seeds: Sequence[int] = (0, 1)
    count: int = 256
    seconds: float | None = None


def tune(
    source: str | Path,
    out: Path,
    values: Mapping[str, Any],
    limits: Limits,
    view: View,
    tell: Callable[[Trial], None] = lambda trial: None,
    begin: Callable[[int, float], None] = lambda number, step_size: None,
) -> TuneOutcome:
    """Find a constant `sampler.step_size` and write the recipe with it to `out`, which must not exist.

    `values` change the recipe in the trials only: a smaller network, another folder of shards. Raises `EbmkitError`s.
    """
    _require_writable(out)
    path = recipes.find(source)
    recipe = _checked(str(source), path, values)
    require_data(recipe)
    from ebmkit.tuning.trials import run_trial

    started, trials = time.monotonic(), list[Trial]()
    planned: tuple[float, str] | None = _start(recipe, values, source)
    reason = f"{limits.trials} trials are over"
    while planned is not None and len(trials) < limits.trials:
        longest = max((trial.seconds for trial in trials), default=0.0)
        if limits.seconds is not None and trials and time.monotonic() - started + longest > limits.seconds:
            reason = "another trial does not fit into the budget"
            break
        begin(len(trials) + 1, planned[0])
        quiet = _WithoutReach(view)
        trial = run_trial(str(source), recipe, values, *planned, limits.steps, tuple(limits.seeds), limits.count, quiet)
        trials.append(trial)
        tell(trial)
        planned = next_step_size(trials)
    taken = best(trials)
    if taken is None:
        raise TrainingFailed("no trial stayed finite; lower optimizer.learning_rate, or check the recipe's penalty")
    if taken.fits:
        reason = "it fits"
    elif planned is None:
        reason = "trials next to each other stop short and go too far: runs this short tell no more"
    text = with_step_size(path.read_text(encoding="utf-8"), taken.step_size, _comments(taken, trials, limits))
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror}") from error
    return TuneOutcome(out, tuple(trials), taken, reason)


def reach_of(source: str | Path, values: Mapping[str, Any], step_size: float) -> float | None:
    """The reachability ratio of the recipe with this step size, or None where the rule says nothing."""
    return pipeline.reach_ratio(recipes.load(source, {**values, "sampler.step_size": step_size}))


def _require_writable(out: Path) -> None:
    if out.exists():
        raise BadInput(f"{out}: already exists and is never overwritten; choose another --out")
    if out.suffix != ".toml":
        raise BadInput(f"{out}: a recipe's name ends in .toml")
    if not out.absolute().parent.is_dir():
        raise BadInput(f"{out}: the folder {out.parent} does not exist")


def _checked(source: str, path: Path, values: Mapping[str, Any]) -> Recipe:
    for key in values:
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in DEPENDS):
            raise BadInput(
                f"--set {key}: the step size depends on it, and --set changes the trials only; change it in the recipe"
            )
    own = recipes.from_table(recipes.read_toml(path), source, path.stem)
    if "step_size" not in type(own.sampler.options).model_fields:
        raise BadInput(f"{source}: sampler '{own.sampler.name}' has no step_size, which is what tune looks for")
    step_size = own.to_table()["sampler"]["step_size"]
    if isinstance(step_size, Mapping):
        raise BadInput(f"{source}: sampler.step_size is a schedule, and tune looks for a constant: make it a number")
    recipe = recipes.load(source, values)
    pipeline.cross_check(recipe, source)
    return recipe


def _start(recipe: Recipe, values: Mapping[str, Any], source: str | Path) -> tuple[float, str]:
    unit = reach_of(source, values, 1.0)
    if unit is not None:
        return rounded(1.0 / unit), "the reachability rule: a sweep just covers its way"
    step_size = recipe.to_table()["sampler"]["step_size"]
    if isinstance(step_size, int | float):
        return float(step_size), "the recipe's own: without a norm per image the reachability rule says nothing"
    raise BadInput(
        f"{source}: set sampler.step_size to a number to begin with; the reachability rule says nothing here"
    )


def _comments(taken: Trial, trials: Sequence[Trial], limits: Limits) -> list[str]:
    lines = [
        f"Found by `ebmkit tune` {__version__}, {limits.steps} steps with seeds {', '.join(map(str, limits.seeds))}.",
        f"The energy of samples is {taken.gap:.2f} standard deviations below that of real images; wanted is slightly,",
        f"more than {LOWEST:g} and at most {HIGHEST:g} (Appendix A.1 of the paper). Tried:",
    ]
    return lines + [f"  {trial.step_size:g}: {trial.gap:.2f}, {trial.verdict}" for trial in trials]


class _WithoutReach:
    """A view that is not told of the reachability of each trial: the search is about just that."""

    def __init__(self, view: View) -> None:
        self.begin, self.step, self.metrics, self.loading = view.begin, view.step, view.metrics, view.loading
        self._say = view.say

    def say(self, message: str) -> None:
        """Passed on, but for that warning."""
        if not message.startswith("warning: reachability:"):
            self._say(message)
