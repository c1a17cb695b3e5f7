"""The reachability rule against the numbers of the method page, and its own inverse."""

from __future__ import annotations

import math

import pytest

from ebmkit import recipe as recipes
from ebmkit.errors import RecipeError
from ebmkit.interfaces import Context, SweepBudget
from ebmkit.pipeline import cross_check
from ebmkit.reachability import distance_to_cover, reach_ratio, step_size_for
from ebmkit.registry import default_registry

GRADIENT_NORM = 1.05
NOISE = {"use": "linear", "start": 0.3, "end": 0.0}


def budget(time_steps: int, steps: int, eta: float) -> SweepBudget:
    langevin = default_registry().component("sampler", "langevin")
    options = langevin.Options(steps=steps, step_size=eta, noise=NOISE)
    return langevin.sweep_budget(options, Context((3, 32, 32), time_steps))


@pytest.mark.parametrize(
    ("side", "time_steps", "steps", "eta", "travel", "distance", "ratio"),
    [(32, 20, 3, 1.7, 51, 92, 0.58), (64, 10, 6, 2.89, 87, 185, 0.49)],
)
def test_the_paper_s_step_sizes_do_not_reach_the_data(
    side: int, time_steps: int, steps: int, eta: float, travel: float, distance: float, ratio: float
) -> None:
    # docs/method.md: "at 32x32 the sweep travels 51 and has 92 to cover (ratio 0.58), at 64x64 87 of 185". Those are
    # without the data's own second moment, which adds 5 percent to the way.
    found, noise, _ = budget(time_steps, steps, eta)
    dimensions = 3 * side * side
    assert found == pytest.approx(travel, rel=0.01)
    assert noise == pytest.approx(0.09 * 60 / 3, rel=0.03)
    assert math.sqrt(dimensions * (1 + noise)) == pytest.approx(distance, rel=0.02)
    assert distance_to_cover(dimensions, noise) == pytest.approx(1.05 * distance, rel=0.02)
    assert reach_ratio(found, noise, dimensions, GRADIENT_NORM) == pytest.approx(ratio / 1.05, rel=0.02)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("dimensions", [64, 12_288])
def test_the_step_size_for_a_ratio_has_that_ratio(ratio: float, dimensions: int) -> None:
    eta = step_size_for(ratio, 30, 0.4, dimensions, GRADIENT_NORM)
    assert reach_ratio(30 * eta / 2, 0.4, dimensions, GRADIENT_NORM) == pytest.approx(ratio)


def test_the_distance_is_that_of_start_noise_added_noise_and_data() -> None:
    assert distance_to_cover(300, 0.0) == pytest.approx(math.sqrt(300 * 1.27))
    assert distance_to_cover(300, 2.0) ** 2 - distance_to_cover(300, 0.0) ** 2 == pytest.approx(600)


def warnings(**set_values: object) -> list[str]:
    changes = {key.replace("__", "."): value for key, value in set_values.items()}
    return cross_check(recipes.load("digits", changes), "digits")


def test_recipes_far_from_the_rule_are_warned_about_either_way() -> None:
    assert warnings() == []
    (short,) = warnings(sampler__step_size=0.01)
    assert "cannot reach the data" in short
    assert "larger sampler.step_size" in short
    (far,) = warnings(sampler__step_size=50)
    assert "overshoot" in far
    assert "smaller sampler.step_size" in far


def test_the_rule_says_nothing_without_a_bound_on_the_gradient() -> None:
    assert warnings(sampler__step_size=0.01, regularizers=[]) == []
    assert warnings(sampler__step_size=0.01, regularizers__0__norm="pixel") == []


def test_a_buffer_smaller_than_the_batch_is_a_problem() -> None:
    with pytest.raises(RecipeError, match=r"buffer\.size +must be at least train\.batch_size \(128\), not 100"):
        warnings(train__batch_size=128, buffer__size=100)


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"time_steps": 100_000, "sampler__steps": 100_000}, "sampler.steps", "at most 1,000,000, not 10,000,000,000"),
        ({"sampler__noise": 1e200}, "sampler.noise", "too large to compute with"),
        ({"sampler__step_size": 1e308}, "sampler.step_size", "too large to compute with"),
    ],
    ids=["endless", "noise", "step size"],
)
def test_sweeps_that_cannot_be_computed_are_problems(changes: dict[str, object], path: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        warnings(**changes)
    ((found, told),) = caught.value.problems
    assert found == path
    assert message in told
