"""Faulty components: one error that names the component, what it did, and where; the traceback is not lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ebmkit_buffers.cyclic import Cyclic
from torch import Tensor

from ebmkit import BufferedObjective, Energy, EnergyModel, Pairs, Regularizer, Sampler, Schedule, SweepBudget, Term
from ebmkit.blame import blamed_on, label_of
from ebmkit.errors import BadInput, ComponentFailed
from ebmkit.model import load_model
from ebmkit.pipeline import cross_check
from ebmkit.recipe import Part, Recipe
from run_helpers import environment, new_trainer, run_process, tiny_recipe, tiny_table, write_recipe, write_shards
from test_plugins import install


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


class Mean(Regularizer):
    """A penalty that is right."""

    name = "mean"

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Any:
        return Term(pairs.energies[0].square().mean(), {})


class Stay(Sampler):
    """A sampler that is right."""

    name = "stay"

    @property
    def steps(self) -> int:
        return 1

    def refine(self, energy: Any, x: Tensor, t: Tensor, noise: Any) -> Any:
        return x.clone()


class Plain(BufferedObjective):
    """An objective that is right."""

    name = "plain"

    def loss(self, pairs: Pairs) -> Any:
        data, samples = pairs.energies
        return Term(data.mean() - samples.mean(), {})


class Line(EnergyModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.weight * x.flatten(1).sum(1)


class Small(Energy):
    """An energy that is right."""

    name = "small"

    def build(self) -> Any:
        return Line()


def faulty(base: Any, method: str, function: Callable[..., Any], static: bool = False) -> Any:
    """`base`, but for one method."""
    members = {method: classmethod(function) if static else function, "name": base.name, "__module__": __name__}
    return type("Faulty", (base,), members)


def divide(self: Any, *arguments: Any) -> Any:
    return 1 / 0


def gives(value: Any) -> Callable[..., Any]:
    return lambda *arguments: value


def recipe_with(shards: str, component: Any) -> Recipe:
    """A recipe of the parts above, one of them replaced."""
    parts: dict[str, Any] = {kind.kind: kind for kind in (Mean, Stay, Plain, Small)}
    parts[component.kind] = component
    recipe = tiny_recipe(shards)
    built = {
        kind: Part(kind, item, recipe.buffer.options if kind == "buffer" else item.Options())
        for kind, item in parts.items()
    }
    return replace(recipe, regularizers=(built.pop("regularizer"),), **built)


def check(recipe: Recipe, _: Path) -> None:
    cross_check(recipe, "mine.toml")


def train(recipe: Recipe, folder: Path) -> None:
    new_trainer(folder / "run", recipe).train_step()


RAISED = "raised ZeroDivisionError: division by zero (test_blame.py, line "
FAULTS: dict[str, tuple[Callable[[Recipe, Path], None], Any, str]] = {
    "problems raises": (check, faulty(Mean, "problems", divide, True), f"problems() {RAISED}"),
    "problems is text": (
        check,
        faulty(Mean, "problems", gives("use: bad"), True),
        "problems() must return a list of sentences, [] for none, not 'use: bad'",
    ),
    "problems of numbers": (
        check,
        faulty(Mean, "problems", gives([3]), True),
        "list of sentences, [] for none, not [3]",
    ),
    "budget raises": (check, faulty(Stay, "sweep_budget", divide, True), f"sweep_budget() {RAISED}"),
    "budget of a tuple": (
        check,
        faulty(Stay, "sweep_budget", gives((1, 2)), True),
        "SweepBudget of numbers from 0, not (1, 2)",
    ),
    "budget of text": (
        check,
        faulty(Stay, "sweep_budget", gives(SweepBudget("far", 0.0)), True),  # type: ignore[arg-type]
        "not SweepBudget(travel='far'",
    ),
    "bound raises": (check, faulty(Mean, "gradient_bound", divide, True), f"gradient_bound() {RAISED}"),
    "bound is text": (check, faulty(Mean, "gradient_bound", gives("1"), True), "None or a number above 0, not '1'"),
    "constructor raises": (train, faulty(Stay, "__init__", divide), f"its constructor {RAISED}"),
    "constructor takes other things": (
        train,
        faulty(Plain, "__init__", lambda self: None),
        "its constructor raised TypeError",
    ),
    "build raises": (train, faulty(Small, "build", divide), f"build() {RAISED}"),
    "build returns the class": (
        train,
        faulty(Small, "build", gives(Line)),
        "must return an ebmkit.EnergyModel, not ABCMeta",
    ),
    "prepare raises": (train, faulty(Mean, "prepare", divide), f"prepare() {RAISED}"),
    "penalty raises": (train, faulty(Mean, "penalty", divide), f"penalty() {RAISED}"),
    "penalty exits": (train, faulty(Mean, "penalty", lambda *a: exit(0)), "penalty() raised SystemExit: 0"),
    "penalty is a tensor": (
        train,
        faulty(Mean, "penalty", gives(torch.ones(()))),
        "penalty() must return an ebmkit.Term, not a tensor []",
    ),
    "penalty of a batch": (
        train,
        faulty(Mean, "penalty", gives(Term(torch.ones(8), {}))),
        "the value of penalty() must be a scalar tensor, not a tensor [8] of float32 on cpu",
    ),
    "penalty of a float": (train, faulty(Mean, "penalty", gives(Term(1.0, {}))), "must be a scalar tensor, not float"),  # type: ignore[arg-type]
    "metrics are a list": (
        train,
        faulty(Plain, "loss", gives(Term(torch.ones(()), []))),
        "the metrics of loss() must be a mapping, not list",
    ),  # type: ignore[arg-type]
    "a metric of a batch": (
        train,
        faulty(Plain, "loss", gives(Term(torch.ones(()), {"a": torch.ones(2)}))),
        "the metric 'a' of loss() must be a scalar tensor, not a tensor [2]",
    ),
    "loss is None": (train, faulty(Plain, "loss", gives(None)), "loss() must return an ebmkit.Term, not NoneType"),
    "pairs is a tuple": (train, faulty(Plain, "pairs", gives((1, 2))), "pairs() must return ebmkit.Pairs, not tuple"),
    "draw is a tuple": (train, faulty(Cyclic, "draw", gives((1, 2))), "draw() must return an ebmkit.Draw, not tuple"),
    "draw raises": (train, faulty(Cyclic, "draw", divide), f"draw() {RAISED}"),
    "store raises": (train, faulty(Cyclic, "store", divide), f"store() {RAISED}"),
    "pairs raises": (train, faulty(Plain, "pairs", divide), f"pairs() {RAISED}"),
    "refine raises": (train, faulty(Stay, "refine", divide), f"refine() {RAISED}"),
    "refine changes the type": (
        train,
        faulty(Stay, "refine", lambda self, energy, x, t, noise: x.double()),
        "refine() was given a tensor [8, 1, 8, 8] of float32 on cpu and must return as much, "
        "not a tensor [8, 1, 8, 8] of float64 on cpu",
    ),
    "refine changes the shape": (
        train,
        faulty(Stay, "refine", lambda self, energy, x, t, noise: x[0]),
        "not a tensor [1, 8, 8]",
    ),
    "refine forgets to return": (train, faulty(Stay, "refine", gives(None)), "and must return as much, not NoneType"),
}


class Speed(Schedule):
    """No number."""

    name = "speed"

    def __call__(self, progress: float) -> Any:
        return "fast" if progress else 1 / 0


class Half(Speed):
    """No number, after half of the training."""

    name = "half"

    def __call__(self, progress: float) -> Any:
        return 1e-4 if progress < 0.5 else "fast"


def test_a_learning_rate_that_is_none(shards: str) -> None:
    recipe = tiny_recipe(shards)
    for schedule, told in (
        (Speed, rf"^schedule 'speed' \({__name__}\): its call {re.escape(RAISED)}"),
        (Half, rf"^schedule 'half' \({__name__}\): it must return a number, not 'fast'"),
    ):
        optimizer = recipe.optimizer.model_copy(update={"learning_rate": schedule(schedule.Options())})
        with pytest.raises(ComponentFailed, match=told):
            cross_check(replace(recipe, optimizer=optimizer), "mine.toml")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_the_component_that_has_it(fault: str, tmp_path: Path, shards: str) -> None:
    call, component, told = FAULTS[fault]
    with pytest.raises(ComponentFailed) as caught:
        call(recipe_with(shards, component), tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{component.kind} '{component.name}' ({component.__module__}): ")
    assert told in message
    assert "\n" not in message
    assert caught.value.exit_code == 1
    if "raised" in told:
        assert caught.value.__cause__ is not None
        assert caught.value.__cause__.__traceback__ is not None


def test_the_parts_are_right_but_for_their_faults(tmp_path: Path, shards: str) -> None:
    check(recipe_with(shards, Mean), tmp_path)
    train(recipe_with(shards, Mean), tmp_path)


def test_a_loss_without_parameters(tmp_path: Path, shards: str) -> None:
    recipe = recipe_with(shards, faulty(Plain, "loss", gives(Term(torch.ones(()), {}))))
    with pytest.raises(ComponentFailed, match=r"objective 'plain'.*does not depend on the network's parameters"):
        train(replace(recipe, regularizers=()), tmp_path)
    # With a penalty that does, there is something to train.
    train(recipe, tmp_path / "with")


def test_what_is_no_fault_of_the_component_is_left_alone() -> None:
    for error in (BadInput("mend me"), MemoryError(), torch.OutOfMemoryError("full"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, blamed_on(Mean, "penalty()"):
            raise error
        assert caught.value is error
    with pytest.raises(ComponentFailed, match="regularizer 'mean'"), blamed_on(Mean, "penalty()"):
        raise RuntimeError("mine")


def test_a_component_that_fails_within_another_is_the_one_that_is_told(tmp_path: Path, shards: str) -> None:
    """`pairs` of the objective calls the sampler."""
    with pytest.raises(ComponentFailed, match=r"^sampler 'stay' .*refine\(\) raised"):
        train(recipe_with(shards, faulty(Stay, "refine", divide)), tmp_path)


def test_a_state_that_is_none(tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (state_dict, told) in enumerate(
        ((divide, "raised ZeroDivisionError"), (gives([]), "must return a dictionary, not list"))
    ):
        monkeypatch.setattr(Cyclic, "state_dict", state_dict)
        told = rf"buffer 'cyclic' \(ebmkit [\w.]+\): state_dict\(\) {told}"
        with pytest.raises(ComponentFailed, match=told):
            new_trainer(tmp_path / f"run-{number}", tiny_recipe(shards, train__steps=1)).train()


def test_the_place_says_which_plugin_it_is_in(tmp_path: Path, shards: str) -> None:
    """A sampler calls the network of another plugin, which fails."""
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards))
    trainer.model.stem = torch.nn.Identity()
    place = r"\(network\.py, line \d+, in plugin unet \(ebmkit [\w.]+\)\)$"
    with pytest.raises(ComponentFailed, match=rf"^sampler 'langevin' \(ebmkit .*refine\(\) raised \w+: .*{place}"):
        trainer.train_step()


def test_an_installed_component_is_named_with_its_distribution() -> None:
    from ebmkit_wgan.regularizers import WganLP

    import ebmkit

    assert label_of(WganLP) == f"regularizer 'wgan_lp' (ebmkit {ebmkit.__version__})"


def test_sampling_a_model_whose_sampler_fails(tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ebmkit_langevin.sampler import Langevin

    model = load_model(new_trainer(tmp_path / "run", tiny_recipe(shards, train__steps=1)).train().model)
    monkeypatch.setattr(Langevin, "refine", divide)
    with pytest.raises(ComponentFailed, match=r"sampler 'langevin' \(ebmkit .*refine\(\) raised ZeroDivisionError"):
        model.sample(1)


PLUGIN = """
import torch
from pydantic import model_validator
from ebmkit import BaseOptions, Regularizer, hookimpl
PLUGIN_API = 1

class R1(Regularizer):
    '''A penalty.'''
    name = "r1"
    class Options(BaseOptions):
        '''Options.'''
        weight: float = 1.0
        @model_validator(mode="after")
        def sound(self):
            1 / self.weight
            return self
    @classmethod
    def problems(cls, options, context):
        return [1 / 0] if options.weight == 2.0 else []
    def penalty(self, pairs, generator):
        return pairs.energies[0][{}]

@hookimpl
def ebmkit_regularizers():
    return [R1]
"""


def test_the_command_line_names_the_distribution_and_how_to_see_the_traceback(tmp_path: Path, shards: str) -> None:
    install(tmp_path, "ebmkit-r1", "r1_plugin", PLUGIN, version="0.1.0")
    who, env = "error: regularizer 'r1' (ebmkit-r1 0.1.0): ", environment(PYTHONPATH=str(tmp_path))
    for weight, what in (
        (
            0.0,
            "the check of its options raised ZeroDivisionError: float division by zero (r1_plugin.py, line 15)",
        ),
        (2.0, "problems() raised ZeroDivisionError: division by zero (r1_plugin.py, line 19)"),
    ):
        recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards, regularizers=[{"use": "r1", "weight": weight}]))
        done = run_process("check", recipe, cwd=tmp_path, env=env)
        assert done.code == 1, done.err
        assert done.err.startswith(who)
        assert what in done.err
        assert "Traceback" not in done.err
        assert "EBMKIT_TRACEBACK=1 shows the traceback" in done.err
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards, regularizers=[{"use": "r1"}]))
    shown = run_process("train", recipe, "--run-dir", "run", cwd=tmp_path, env={**env, "EBMKIT_TRACEBACK": "1"})
    assert shown.code == 1
    assert "return pairs.energies[0][{}]" in shown.err, "the traceback"
    assert shown.err.splitlines()[-1].startswith(f"{who}penalty() raised IndexError: ")
