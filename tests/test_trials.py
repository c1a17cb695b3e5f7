"""The parts that were tried and did not win: they are what they are said to be."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from ebmkit_langevin.sampler import Langevin
from ebmkit_wgan.regularizers import WganLP
from torch import Tensor

from ebmkit import Context, EnergyModel, Pairs
from ebmkit.noise import GeneratorNoise, PerImageNoise
from ebmkit.plugins import LoadedPlugin, Registered, discover
from ebmkit.registry import Registry
from ebmkit.testing import BufferContract, ObjectiveContract, RegularizerContract, SamplerContract
from run_helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "results" / "trials"))
import ebmkit_trials
from ebmkit_trials.buffer import TrialCyclic
from ebmkit_trials.normalized import NormalizedLangevin
from ebmkit_trials.objective import TrialWeighted
from ebmkit_trials.penalty import TrialLP
from ebmkit_trials.preconditioned import PreconditionedLangevin
from ebmkit_trials.preconditioner import Preconditioner, power_law
from ebmkit_trials.uneven import UnevenLangevin

SHAPE = (2, 8, 6)


def build(kind: type[Langevin], time_steps: int = 3, **options: Any) -> Langevin:
    return kind(kind.Options(**{"steps": 4, "step_size": 0.3, "noise": 0.2, **options}), Context(SHAPE, time_steps))


def noise(seed: int = 0) -> GeneratorNoise:
    return GeneratorNoise(torch.Generator().manual_seed(seed))


def energy(x: Tensor, t: Tensor) -> Tensor:
    """Curved, and different at each time step."""
    return (t.view(-1, 1, 1, 1) * (x - 0.5).square() / 4 + x.sin()).sum((1, 2, 3))


@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 5, 7), (2, 16, 16)])
@pytest.mark.parametrize(("spectrum", "chroma"), [(0.0, 1.0), (0.5, 1.0), (1.0, 0.1), (0.0, 0.1)])
def test_noise_of_a_preconditioner_has_its_covariance(
    shape: tuple[int, int, int], spectrum: float, chroma: float
) -> None:
    """A variance of 1 at each pixel, that of the power law at each frequency, and little colour."""
    preconditioner = Preconditioner(shape, spectrum, chroma)
    white = torch.randn(4000, *shape, generator=torch.Generator().manual_seed(0))
    noise = preconditioner.root(white)
    assert noise.var().item() == pytest.approx(1, rel=0.02)
    torch.testing.assert_close(preconditioner.root(noise), preconditioner.apply(white), rtol=1e-3, atol=1e-4)
    power = torch.fft.rfft2(noise, norm="ortho").abs().square().mean((0, 1))
    torch.testing.assert_close(power, power_law(*shape[1:], spectrum), rtol=0.15, atol=0)
    if shape[0] > 1:
        mean = noise.mean(1, keepdim=True)
        # Of white channels the mean has 1 / C of the variance, and each difference 1 of C - 1 shares of the rest.
        ratio = (noise - mean).square().sum() / (shape[0] - 1) / (shape[0] * mean.square().sum())
        assert ratio.item() == pytest.approx(chroma, rel=0.03)


def test_the_power_falls_as_said() -> None:
    power = power_law(64, 64, 1.5)
    assert power[0, 0] == power.max()
    assert (power[0, 4] / power[0, 8]).item() == pytest.approx(((8**2 + 1) / (4**2 + 1)) ** 1.5)
    torch.testing.assert_close(power_law(8, 6, 0.0), torch.ones(8, 4))


def test_the_map_is_symmetric() -> None:
    x, y = torch.randn(2, 1, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    preconditioner = Preconditioner((3, 8, 6), 1.0, 0.2)
    torch.testing.assert_close((preconditioner.apply(x) * y).sum(), (x * preconditioner.apply(y)).sum())


def test_without_a_preconditioner_it_is_langevin() -> None:
    x, t = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(2)), torch.tensor([1, 2, 3, 1, 2, 3])
    plain = build(Langevin).refine(energy, x, t, noise())
    torch.testing.assert_close(
        build(PreconditionedLangevin, spectrum=0.0, chroma=1.0).refine(energy, x, t, noise()), plain
    )


def test_it_is_langevin_of_whitened_images() -> None:
    """With y = P^(-1/2) x: the plain sampler on f(P^(1/2) y), from the same white start and with the same noise."""
    root = Preconditioner(SHAPE, 1.0, 0.2).root
    y, t = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(3)), torch.full((6,), 3)
    white = build(Langevin).refine(lambda y, t: energy(root(y), t), y, t, noise())
    found = build(PreconditionedLangevin, spectrum=1.0, chroma=0.2).refine(energy, y, t, noise())
    torch.testing.assert_close(found, root(white), rtol=1e-4, atol=1e-4)


def test_only_chains_that_start_are_colored() -> None:
    """Without steps that go anywhere, chains at t = T become the start of a sweep, and others stay."""
    x, t = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(4)), torch.tensor([3, 2, 3, 1])
    sampler = build(PreconditionedLangevin, spectrum=1.0, chroma=0.2, start=0.5, step_size=0.0, noise=0.0)
    begun = sampler.refine(energy, x, t, noise())
    torch.testing.assert_close(begun[[1, 3]], x[[1, 3]], rtol=0, atol=0)
    torch.testing.assert_close(begun[[0, 2]], 0.5 * Preconditioner(SHAPE, 1.0, 0.2).root(x[[0, 2]]))


def test_the_step_size_knows_where_chains_start() -> None:
    context = Context(SHAPE, 10)
    etas = [
        PreconditionedLangevin(PreconditionedLangevin.Options(steps=3, start=start, chroma=1.0), context).step_sizes
        for start in (0.5, 1.0)
    ]
    plain = Langevin(Langevin.Options(steps=3), context)
    torch.testing.assert_close(etas[1], plain.step_sizes)
    added = plain.sigmas.square().sum()
    torch.testing.assert_close(etas[0] / etas[1], ((0.25 + 0.27 + added) / (1.27 + added)).sqrt().expand(10, 3))


def test_a_single_time_step_is_refused() -> None:
    options = PreconditionedLangevin.Options()
    assert PreconditionedLangevin.problems(options, Context(SHAPE, 2)) == []
    assert "needs time_steps of 2 or more" in PreconditionedLangevin.problems(options, Context(SHAPE, 1))[0]


def test_uneven_steps_are_the_sweep_of_langevin_divided_otherwise() -> None:
    """An energy that does not look at t cannot tell the difference: the same steps in the same order."""
    still = GeneratorNoise(torch.Generator().manual_seed(0))
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(9))
    schedules = {"step_size": {"use": "linear", "start": 0.5, "end": 0.1}, "noise": 0.0}
    plain, uneven = build(Langevin, **schedules), build(UnevenLangevin, counts=(1, 3, 8), **schedules)
    expected, found = x, x
    for step in (3, 2, 1):
        t = torch.full((4,), step)
        expected = plain.refine(lambda x, t: energy(x, t * 0 + 1), expected, t, still)
        found = uneven.refine(lambda x, t: energy(x, t * 0 + 1), found, t, still)
    torch.testing.assert_close(found, expected)


def test_uneven_steps_are_computed_where_they_are_taken() -> None:
    """Twelve gradients for a batch of all three time steps, and no image knows of the others."""
    sampler = build(UnevenLangevin, counts=(1, 3, 8))
    x, t, asked = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(10)), torch.tensor([3, 1, 2]), []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        asked.extend(t.tolist())
        return energy(x, t)

    source = PerImageNoise(0, range(3), "cpu")
    together, after = sampler.refine(counted, x, t, source), source.normal_like(x)
    assert [asked.count(step) for step in (3, 2, 1)] == [1, 3, 8]
    for i in range(3):
        mine, one = slice(i, i + 1), PerImageNoise(0, [i], "cpu")
        torch.testing.assert_close(together[mine], sampler.refine(energy, x[mine], t[mine], one))
        # And the noise of its next steps is the same, whoever else was in the batch.
        torch.testing.assert_close(one.normal_like(x[mine]), after[mine])


def test_counts_that_make_no_sweep_are_refused() -> None:
    def told(**options: Any) -> str:
        return " ".join(UnevenLangevin.problems(UnevenLangevin.Options(steps=4, **options), Context(SHAPE, 3)))

    assert told(counts=(1, 3, 8)) == told() == ""
    assert "3 numbers" in told(counts=(6, 6))
    assert "add up to 12" in told(counts=(1, 3, 9))
    assert "at least one" in told(counts=(0, 4, 8))
    assert "neither clips" in told(counts=(1, 3, 8), clamp=1.0)


def test_normalized_steps_have_their_length() -> None:
    x, t = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(5)), torch.tensor([1, 2, 3, 1, 2])
    sampler = build(NormalizedLangevin, steps=1, noise=0.0)
    for scale in (0.01, 1.0, 100.0):
        moved = sampler.refine(lambda x, t, scale=scale: scale * energy(x, t), x, t, noise()) - x
        torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((5,), 0.15))


@pytest.mark.parametrize("options", [{}, {"share": 0.5}, {"spectrum": 1.0, "chroma": 0.2}])
def test_the_penalty_is_that_of_wgan_lp_in_other_coordinates(options: dict[str, float]) -> None:
    """On y = P^(-1/2) x, and of the first half of the images."""
    x_pos, x_neg = torch.randn(2, 6, *SHAPE, generator=torch.Generator().manual_seed(6))
    count = 3 if "share" in options else 6
    root = Preconditioner(SHAPE, options.get("spectrum", 0.0), options.get("chroma", 1.0)).root

    class Curved(EnergyModel):
        def __init__(self, map_: Any = None) -> None:
            super().__init__()
            self.scale, self.map_ = torch.nn.Parameter(torch.tensor(0.3)), map_ or (lambda x: x)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.scale * energy(self.map_(x), t)

    t, context = torch.tensor([1, 2, 3, 1, 2, 3]), Context(SHAPE, 3)
    found = TrialLP(TrialLP.Options(**options), context).penalty(Pairs(Curved(), x_pos, x_neg, t), generator())
    # Its gradient by y is P^(1/2) of the gradient by x, at the same places x = P^(1/2) y.
    y_pos, y_neg = (inverse(root, x)[:count] for x in (x_pos, x_neg))
    plain = WganLP(WganLP.Options(weight=10.0), context)
    expected = plain.penalty(Pairs(Curved(root), y_pos, y_neg, t[:count]), generator())
    torch.testing.assert_close(found.value, expected.value, rtol=1e-3, atol=1e-4)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def inverse(root: Any, x: Tensor) -> Tensor:
    """`P^(-1/2) x`, by solving with the map's matrix."""
    size = x[0].numel()
    matrix = root(torch.eye(size).view(size, *x.shape[1:])).flatten(1)
    return torch.linalg.solve(matrix.T, x.flatten(1).T).T.reshape(x.shape)


def installed() -> Registry:
    """The trials beside what is installed."""
    items = [Registered(part.kind, part.name, part, "trials", "ebmkit-trials", "0.1.0") for part in PARTS]
    return Registry([*discover(), LoadedPlugin("trials", ebmkit_trials, tuple(items), "ebmkit-trials", "0.1.0")])


PARTS = (PreconditionedLangevin, NormalizedLangevin, UnevenLangevin, TrialLP, TrialCyclic, TrialWeighted)


def test_the_hooks_give_these_parts() -> None:
    hooks = (value for name, value in vars(ebmkit_trials).items() if name.startswith("ebmkit_") and callable(value))
    assert {part for hook in hooks for part in hook()} == set(PARTS)


def cyclic(**options: Any) -> TrialCyclic:
    return TrialCyclic(TrialCyclic.Options(size=10, **options), Context(SHAPE, 3, seed=8))


def test_slots_take_turns() -> None:
    buffer = cyclic(order="in_turn")
    drawn = [buffer.draw(4, generator()) for _ in range(5)]
    assert [draw.slots.tolist() for draw in drawn][:3] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    met = torch.cat([draw.slots for draw in drawn])
    assert met.bincount().tolist() == [2] * 10
    resumed = cyclic(order="in_turn")
    for _ in range(2):
        buffer.draw(4, generator())
    resumed.load_state_dict(buffer.state_dict())
    assert resumed.draw(4, generator()).slots.tolist() == buffer.draw(4, generator()).slots.tolist() == [8, 9, 0, 1]


def test_chains_stay_at_the_last_time_step() -> None:
    buffer, met = cyclic(ends=3), []
    for _ in range(10):
        drawn = buffer.draw(10, generator())
        slot = int((drawn.slots == 0).nonzero())
        met.append(int(drawn.t[slot]))
        buffer.store(drawn.slots, drawn.x * 0 + 7)
        # What was kept is drawn again until the slot starts afresh.
        if len(met) > 1:
            assert (drawn.x[slot] == 7).all() == (met[-1] != 3)
    first = met.index(3)
    assert met[first : first + 6] == [3, 2, 1, 1, 1, 3]
    assert TrialCyclic.chain_length(buffer.options, buffer.context, 5) == 10


def test_weights_go_geometrically_over_the_time_steps() -> None:
    objective = TrialWeighted(TrialWeighted.Options(late=4.0), Context(SHAPE, 3))
    x_pos, x_neg = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(9))
    t = torch.tensor([3, 2, 1])
    difference = energy(x_pos, t) - energy(x_neg, t)
    expected = (torch.tensor([0.5, 1.0, 2.0]) * difference).mean()
    torch.testing.assert_close(objective.loss(Pairs(energy, x_pos, x_neg, t)).value, expected)


class TestPreconditioned(SamplerContract):
    component = PreconditionedLangevin
    registry = installed()


class TestNormalized(SamplerContract):
    component = NormalizedLangevin
    registry = installed()


class TestUneven(SamplerContract):
    component = UnevenLangevin
    registry = installed()


class TestBuffer(BufferContract):
    component = TrialCyclic
    registry = installed()


class TestBufferInTurn(BufferContract):
    component = TrialCyclic
    options = {"order": "in_turn"}
    registry = installed()


class TestBufferThatStays(BufferContract):
    component = TrialCyclic
    options = {"ends": 3}
    registry = installed()


class TestWeighted(ObjectiveContract):
    component = TrialWeighted
    registry = installed()


class TestPenalty(RegularizerContract):
    component = TrialLP
    registry = installed()
