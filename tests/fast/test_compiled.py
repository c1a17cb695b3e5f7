"""Compiled energies: the same numbers, used only where nobody differentiates them again, and never in the way."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebmkit import Context, Pairs, energy_gradient
from ebmkit.fast import energy as energies
from ebmkit.fast.energy import FastEnergy, both_energies
from ebmkit.fast.parts import Parts
from ebmkit.model import Model
from ebmkit.noise import GeneratorNoise, generator
from ebmkit.pipeline import build_energy, frozen
from ebmkit.registry import default_registry
from run_helpers import ROOT, environment, run_process, tiny_recipe, tiny_table, write_recipe, write_shards

SHAPE = (3, 1, 8, 8)
X, OTHER = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
T = torch.tensor([1, 4, 2])
TRACED = "_once", "_twice", "_forward"


def network(**options: object) -> nn.Module:
    recipe = tiny_recipe("digits", **{f"energy__{name}": value for name, value in options.items()})
    return build_energy(recipe, recipe.context("cpu"), [])


def counting(fast: FastEnergy) -> dict[str, int]:
    """How often each compiled function is called from here on."""
    counts = dict.fromkeys(TRACED, 0)

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Tensor) -> Any:
            counts[name] += 1
            return function(*values)

        return call

    for name in TRACED:
        setattr(fast, name, counted(name, getattr(fast, name)))
    return counts


@pytest.fixture(scope="module")
def compiled() -> Iterator[FastEnergy]:
    """Compiled by all of torch's machinery but the generator of code, which takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        quick = lambda function, mode=None: torch.compile(function, dynamic=False, backend="aot_eager")  # noqa: E731
        patch.setattr(energies, "_compiled", quick)
        fast, told = FastEnergy(network(), Parts(compile=True, concatenate=True)), list[str]()
        assert fast.compile(SHAPE, "cpu", told.append), told
        assert len(told) == 1
        yield fast
    torch._dynamo.reset()


@pytest.fixture
def calls(compiled: FastEnergy) -> Iterator[dict[str, int]]:
    before = {name: getattr(compiled, name) for name in TRACED}
    yield counting(compiled)
    vars(compiled).update(before)


def check(fast: FastEnergy, tolerance: float = 1e-4) -> None:
    """Everything that is compiled against float64 and eager float32."""
    wide, parameters = copy.deepcopy(fast.model).double(), list(fast.model.parameters())
    eager = FastEnergy(fast.model, Parts(concatenate=True))
    with frozen(fast.model), torch.no_grad():
        gradient = energy_gradient(fast, X, T)
    assert not gradient.requires_grad
    assert close(gradient, energy_gradient(wide, X.double(), T), tolerance)
    assert close(gradient, energy_gradient(eager, X, T), tolerance)

    def objective(energy: Any, dtype: torch.dtype) -> Tensor:
        positive, negative = both_energies(energy, X.to(dtype), OTHER.to(dtype), T)
        return (positive - negative).square().mean()

    def penalty(energy: Any, dtype: torch.dtype) -> Tensor:
        return (energy_gradient(energy, X.to(dtype), T, create_graph=True).flatten(1).norm(dim=1) - 1).square().mean()

    for term in (objective, penalty):
        value = term(fast, torch.float32)
        found = torch.autograd.grad(value, parameters, allow_unused=True)
        for energy, dtype, by in (
            (wide, torch.float64, list(wide.parameters())),
            (eager, torch.float32, parameters),
        ):
            expected = term(energy, dtype)
            assert close(value.detach(), expected.detach(), tolerance)
            theirs = torch.autograd.grad(expected, by, allow_unused=True)
            assert close(flat(found), flat(theirs), tolerance)
    assert all(parameter.grad is None for parameter in parameters)


def flat(gradients: tuple[Tensor | None, ...]) -> Tensor:
    return torch.cat([value.flatten() for value in gradients if value is not None])


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return float((found.double() - expected.double()).norm() / expected.double().norm()) < tolerance


def test_it_gives_the_numbers_of_float64_and_of_eager_torch(compiled: FastEnergy, calls: dict[str, int]) -> None:
    check(compiled)
    assert all(calls[name] for name in TRACED)


def test_batches_of_another_shape_are_eager(compiled: FastEnergy, calls: dict[str, int]) -> None:
    energy_gradient(compiled, X[:2], T[:2])
    compiled(X[:2], T[:2])
    both_energies(compiled, X[:2], OTHER[:2], T[:2])
    assert not any(calls.values())


def test_a_penalty_that_differentiates_by_itself_is_eager(compiled: FastEnergy, calls: dict[str, int]) -> None:
    """As third parties write it: compiled code would refuse the second derivative, or lose it."""

    def penalty(energy: Any) -> tuple[Tensor | None, ...]:
        x = X.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x, T).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), list(compiled.model.parameters()), allow_unused=True)

    ours, theirs = penalty(compiled), penalty(compiled.model)
    assert not any(calls.values())
    assert torch.equal(flat(ours), flat(theirs))


def test_evaluation_without_gradients_is_eager(compiled: FastEnergy, calls: dict[str, int]) -> None:
    """For another mode of gradients all would be compiled once more."""
    with torch.no_grad():
        assert torch.equal(compiled(X, T), compiled.model(X, T))
    assert not any(calls.values())


@pytest.mark.parametrize("last", [True, False])
def test_the_order_of_memory_compiles_nothing_anew(compiled: FastEnergy, calls: dict[str, int], last: bool) -> None:
    order = torch.channels_last if last else torch.contiguous_format
    wide = torch.randn(3, 1, 8, 16, generator=torch.Generator().manual_seed(2))[..., ::2]
    x = wide.to(memory_format=order) if last else wide
    expected = energy_gradient(compiled.model, x, T)
    with torch.compiler.set_stance("fail_on_recompile"), frozen(compiled.model), torch.no_grad():
        found = energy_gradient(compiled, x, T)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert calls["_once"] == 1


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ModuleType]]:
    """The tutorial's plugins, for the time of a test."""
    folders, before = sorted((ROOT / "docs" / "examples").glob("*/ebmkit_*")), set(sys.modules)
    for folder in folders:
        monkeypatch.syspath_prepend(str(folder.parent))
    yield [importlib.import_module(folder.name) for folder in folders]
    for name in set(sys.modules) - before:
        if name.startswith(tuple(folder.name for folder in folders)):
            del sys.modules[name]


def components(kind: str, examples: list[ModuleType]) -> list[Any]:
    """Those of first-party plugins and of the tutorial."""
    found = {item.name: item.component for item in default_registry() if item.kind == kind}
    for module in examples:
        found |= {component.name: component for component in getattr(module, f"ebmkit_{kind}s", list)()}
    return [component(component.Options(), Context(SHAPE[1:], 4)) for component in found.values()]


def test_samplers_draw_the_same_images(compiled: FastEnergy, calls: dict[str, int], examples: list[ModuleType]) -> None:
    samplers = components("sampler", examples)
    assert {sampler.name for sampler in samplers} >= {"langevin", "underdamped"}
    for sampler in samplers:
        calls.update(dict.fromkeys(calls, 0))
        with frozen(compiled.model), torch.no_grad():
            found, expected = (
                sampler.refine(energy, X, T, GeneratorNoise(generator("cpu", 1, "test")))
                for energy in (compiled, compiled.model)
            )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert calls["_once"] == sampler.steps, f"{sampler.name} makes no use of it"


def test_regularizers_give_the_same_penalties(compiled: FastEnergy, examples: list[ModuleType]) -> None:
    regularizers = components("regularizer", examples)
    names, parameters = set(), list(compiled.model.parameters())
    for regularizer in regularizers:
        results = []
        for energy in (compiled, compiled.model):
            # Steep enough for the one-sided.
            pairs = Pairs(energy, 9 * X, 9 * OTHER, T)
            term = regularizer.penalty(pairs, generator("cpu", 1, "test"))
            if term is not None:
                names.add(regularizer.name)
                found = torch.autograd.grad(term.value, parameters, allow_unused=True)
                results.append((term.value.detach(), flat(found)))
        for ours, theirs in zip(*results, strict=True) if results else ():
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert names >= {"wgan_gp", "wgan_lp", "energy_l2", "r1"}


def test_trying_it_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spectral norm moves its vectors with each evaluation: a resumed run would have other ones."""
    monkeypatch.setattr(energies, "_compiled", lambda function, mode=None: function)
    model = network()
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            nn.utils.parametrizations.spectral_norm(module)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    assert FastEnergy(model, Parts(compile=True)).compile(SHAPE, "cpu", lambda message: None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


class Fails:
    """A function that fails at the given call, or loses what autograd needs."""

    def __init__(self, function: Callable[..., Tensor], error: Exception | None, call: int) -> None:
        self.function, self.error, self.left = function, error, call

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.left -= 1
        if self.left:
            return self.function(x, t)
        if self.error is not None:
            raise self.error
        return self.function(x, t).detach()


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("\n\nno such thing\nmore"), "(no such thing)"),
        (NotImplementedError(), "(NotImplementedError)"),
        (torch._dynamo.exc.BackendCompilerFailed(lambda: None, OSError("no compiler"), None), "no compiler"),
    ],
)
def test_what_fails_stays_eager_with_one_warning(
    error: Exception, reason: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energies, "_compiled", lambda function, mode=None: Fails(function, error, call))
    model, told = network(), list[str]()
    fast = FastEnergy(model, Parts(compile=True, concatenate=True))
    assert not fast.compile(SHAPE, "cpu", told.append)
    assert [message.startswith("warning: ") for message in told] == [False, True]
    assert reason in told[1]
    assert "fast.compile = 'off'" in told[1]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(energy_gradient(fast, X, T), energy_gradient(model, X, T))


def test_a_gradient_that_trains_nothing_counts_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energies, "_compiled", lambda function, mode=None: Fails(function, None, 1))
    told: list[str] = []
    assert not FastEnergy(network(), Parts(compile=True)).compile(SHAPE, "cpu", told.append)
    assert "depends on no parameter" in told[1]


def test_a_model_does_not_try_again_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("no compiler")
    monkeypatch.setattr(energies, "_compiled", lambda function, mode=None: Fails(function, error, 1))
    recipe = tiny_recipe("digits", fast={"compile": "on"})
    told: list[str] = []
    model = Model(build_energy(recipe, recipe.context(), []), recipe, "cpu", {}, say=told.append)
    images = [model.sample(count, batch_size=4) for count in (2, 3, 2)]
    assert sum("cannot be compiled" in line for line in told) == 1
    assert torch.equal(images[0], images[2])


def test_a_lack_of_memory_is_no_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    error = torch.OutOfMemoryError("full")
    monkeypatch.setattr(energies, "_compiled", lambda function, mode=None: Fails(function, error, 1))
    with pytest.raises(torch.OutOfMemoryError):
        FastEnergy(network(), Parts(compile=True)).compile(SHAPE, "cpu", lambda message: None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_real_compiler_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the smallest network there is: minutes on two cores."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)
    fast = FastEnergy(network(channels=8, channel_multipliers=[1]), Parts(compile=True, concatenate=True))
    assert fast.compile(SHAPE, "cpu", lambda message: None)
    counts = counting(fast)
    check(fast)
    assert all(counts.values())


@pytest.mark.slow
def test_training_goes_on_where_nothing_can_be_compiled(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    write_recipe(tmp_path / "tiny.toml", tiny_table(shards, train__steps=2, fast={"compile": "on"}))
    environ = environment(CXX="/nonexistent", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    done = run_process("train", "tiny.toml", "--run-dir", "run", cwd=tmp_path, env=environ)
    assert done.code == 0, done.err
    shown = " ".join((done.out + done.err).split())
    assert "warning: the network cannot be compiled here and stays eager" in shown
    assert (tmp_path / "run" / "model.safetensors").is_file()
