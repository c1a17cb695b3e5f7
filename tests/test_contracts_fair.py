"""The contracts find nothing in components that are unusual and right."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from correct_components import CORRECT
from correct_components.others import NumpySteps, Steps
from correct_components.samplers import HMC, MALA, ULA
from docs_pages import fences, module_of
from ebmkit import EnergyModel, Objective
from ebmkit.plugins import LoadedPlugin, Registered, discover
from ebmkit.registry import Registry, default_registry
from ebmkit.testing import CONTRACTS, ObjectiveContract, SamplerContract
from ebmkit.testing.checking import Finding, run_contract
from run_helpers import metrics_of, new_trainer, tiny_recipe, write_shards

IMPORTS = "importing it imports no torch"
"""These stand in modules of tests, which import torch."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def registry_with(component: type[Any], module: ModuleType) -> Registry:
    item = Registered(component.kind, component.name, component, "fair", "fair", "1.0")
    return Registry([*discover(), LoadedPlugin("fair", module, (item,))])


def broken(
    component: type[Any], contract: type[Any] | None = None, options: Mapping[str, Any] | None = None, **members: Any
) -> list[Finding]:
    """What the contract of its kind, or this one, finds wrong."""
    registry = registry_with(component, sys.modules[component.__module__])
    own = {"component": component, "registry": registry, "options": options or {}, **members}
    made = type("Fair", (contract or CONTRACTS[component.kind],), own)
    return [item for item in run_contract(made, "fair") if item.outcome == "failed" and item.rule != IMPORTS]


@pytest.mark.parametrize("component", CORRECT, ids=lambda component: component.name)
def test_what_is_right_breaks_no_rule(component: type[Any]) -> None:
    assert broken(component) == []


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("name", ["resnet", "unet"])
def test_networks_with_kinks_break_no_rule(name: str, activation: str) -> None:
    component = default_registry().component("energy", name)
    assert broken(component, options={"channels": 8, "activation": activation}) == []


@pytest.mark.parametrize(
    ("component", "options", "sweeps"),
    [(ULA, {"steps": 10}, 50), (MALA, {"steps": 5, "step_size": 0.1}, 50), (HMC, {"step_size": 0.2}, 30)],
)
def test_exact_samplers_sample_the_gibbs_distribution(
    component: type[Any], options: dict[str, Any], sweeps: int
) -> None:
    rule = "test_samples_the_gibbs_distribution"
    own = {"component": component, "registry": registry_with(component, sys.modules[component.__module__])}
    made = type("Fair", (SamplerContract,), {**own, "gibbs_options": options, "gibbs_sweeps": sweeps})
    getattr(made(), rule)()


# --- the sketches of objectives.md -----------------------------------------------------------------------------------

SKETCHES = [body for page, _, body in fences("python") if page == "docs/objectives.md"]


def sketch(number: int, folder: Path) -> tuple[type[Any], ModuleType]:
    module = module_of(f"fair_sketch_{number}", SKETCHES[number], folder)
    own = [item for item in vars(module).values() if getattr(item, "__module__", None) == module.__name__]
    (objective,) = (item for item in own if isinstance(item, type) and issubclass(item, Objective))
    return objective, module


def of_logits(module: ModuleType) -> type[ObjectiveContract]:
    """The contract with networks that have logits, as the sketch of JEM wants them."""

    class Bowl(module.LogitModel):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            EnergyModel.__init__(self)
            self.center = nn.Parameter(torch.zeros(()))

        def logits(self, x: Tensor, t: Tensor) -> Tensor:
            bowl = (x - self.center).square().flatten(1).sum(1, keepdim=True) / 2
            return -bowl.expand(-1, 10)

    class OfLogits(ObjectiveContract):
        def network(self) -> EnergyModel:
            context = self.context()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model: EnergyModel = module.LogitModel(context.image_shape, context.time_steps, 10, 8)
            return model

        def bowl(self) -> EnergyModel:
            return Bowl()

    return OfLogits


@pytest.mark.parametrize("number", range(len(SKETCHES)))
def test_a_sketched_objective_breaks_no_rule(number: int, tmp_path: Path) -> None:
    objective, module = sketch(number, tmp_path)
    contract = of_logits(module) if hasattr(module, "LogitModel") else ObjectiveContract
    members: dict[str, Any] = {}
    if objective.name == "denoising_score_matching":
        # A score says nothing of two energies a step apart: the rule is about contrastive objectives.
        members["test_training_lowers_the_energy_of_data"] = None
    assert broken(objective, contract, **members) == []


def test_the_sketches_are_found(tmp_path: Path) -> None:
    names = {sketch(number, tmp_path)[0].name for number in range(len(SKETCHES))}
    assert names >= {"jem", "recovery_likelihood", "improved_cd", "denoising_score_matching"}


# --- what a schedule gives -------------------------------------------------------------------------------------------


def test_a_run_takes_the_numbers_of_any_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers and numpy's numbers are floats to whoever calls a schedule, and stand in checkpoints as such."""
    # A model file names the plugins of its parts, and this schedule is of none.
    monkeypatch.setattr(NumpySteps, "name", "linear")
    # A learning rate of 1 is too large for the watchdog.
    recipe = tiny_recipe(write_shards(tmp_path / "shards"), train__steps=2, watchdog={"mode": "off"})
    schedule = NumpySteps(NumpySteps.Options())
    assert [type(schedule(0.25)), type(Steps(Steps.Options())(0.25))] == [float, float]
    rate = recipe.optimizer.model_copy(update={"learning_rate": schedule})
    new_trainer(tmp_path / "run", replace(recipe, optimizer=rate)).train()
    assert [row["learning_rate"] for row in metrics_of(tmp_path / "run")] == [1.0, 0.5]
