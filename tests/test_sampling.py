"""The sweep and drawing from a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebmkit import BadInput, Context, Sampler
from ebmkit.model import Model, load_model
from ebmkit.noise import GeneratorNoise, PerImageNoise, generator, stream_seed
from ebmkit.registry import default_registry
from ebmkit.sampling import from_uint8, start_noise, sweep, to_uint8
from run_helpers import new_trainer, tiny_recipe, write_shards

AHEAD = 16
"""Draws that the noise of an image gives at a time."""
TOLERANCE = 2e-5
"""Convolutions of another batch size add up in another order: measured, 1e-6 after 8 Langevin steps of this model."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("sampling")
    recipe = tiny_recipe(write_shards(folder / "shards"), train__steps=30, train__checkpoint_every=100)
    return load_model(new_trainer(folder / "run", recipe).train().folder / "model.safetensors", "cpu")


def test_images_do_not_depend_on_the_batch_size(model: Model) -> None:
    reference = model.sample(64, seed=5, batch_size=64)
    for batch_size in (1, 3, 7):
        images = model.sample(64, seed=5, batch_size=batch_size)
        assert float((images - reference).abs().max()) <= TOLERANCE
        steps = (to_uint8(images).int() - to_uint8(reference).int()).abs()
        assert int(steps.max()) <= 1
        assert float((steps > 0).float().mean()) < 0.001
    assert torch.equal(model.sample(64, seed=5, batch_size=64), reference)
    assert float(reference.std()) > 0.1


def test_the_first_images_of_more_are_the_same_images(model: Model) -> None:
    few, many = model.sample(10, seed=1), model.sample(20, seed=1)
    torch.testing.assert_close(many[:10], few, rtol=0, atol=TOLERANCE)


def test_different_seeds_and_different_images_differ(model: Model) -> None:
    one, other = model.sample(16, seed=0), model.sample(16, seed=1)
    assert float((one - other).abs().amax((1, 2, 3)).min()) > 0.1
    distances = torch.cdist(torch.cat([one, other]).flatten(1), torch.cat([one, other]).flatten(1))
    assert float((distances + 10 * torch.eye(32)).min()) > 0.1, "no image comes twice"


def test_streams_of_images_never_collide() -> None:
    seeds = {stream_seed(seed, "sample", index=i) for seed in range(20) for i in range(500)}
    assert len(seeds) == 20 * 500
    assert stream_seed(1, "sample") != stream_seed(1, "train", 0)


def mixed_draws(indices: list[int]) -> list[Tensor]:
    """Draws of both laws, two shapes and two types in turn, over more than two blocks."""
    noise, n = PerImageNoise(3, indices, "cpu"), len(indices)
    large, small, double = torch.empty(n, 3, 5, 7), torch.empty(n, 1, 2, 2), torch.empty(n, 1, 2, 2).double()
    drawn = []
    for number in range(2 * AHEAD + 3):
        drawn.append(noise.normal_like(large))
        if number % 3 == 0:
            drawn += [noise.uniform_like(large), noise.normal_like(small)]
        if number % 5 == 0:
            drawn.append(noise.uniform_like(double))
    return drawn


def test_noise_of_an_image_depends_on_no_other_whatever_is_drawn_in_which_order() -> None:
    together, other = mixed_draws([0, 1, 2, 3, 4]), mixed_draws([4, 1])
    for draw, some in zip(together, other, strict=True):
        assert torch.equal(draw[[4, 1]], some)
        assert draw.is_contiguous()
        assert not torch.equal(draw[0], draw[1])
    alone = mixed_draws([2])
    assert all(torch.equal(draw[2:3], one) for draw, one in zip(together, alone, strict=True))


def test_noise_has_its_laws_over_blocks_and_no_value_comes_again() -> None:
    noise, x = PerImageNoise(0, range(50), "cpu"), torch.empty(50, 3, 8, 8)
    normal = torch.stack([noise.normal_like(x) for _ in range(3 * AHEAD)])
    uniform = torch.stack([noise.uniform_like(x) for _ in range(3 * AHEAD)])
    n = normal.numel()
    assert normal.mean().item() == pytest.approx(0, abs=5 / n**0.5)
    assert normal.var().item() == pytest.approx(1, rel=5 * (2 / n) ** 0.5)
    assert uniform.mean().item() == pytest.approx(0.5, abs=5 / (12 * n) ** 0.5)
    assert 0 <= float(uniform.min()) < 1e-4
    assert 0.9999 < float(uniform.max()) <= 1
    # Draws of an image one after the other, also from one block to the next: no row like another.
    rows = normal.transpose(0, 1).flatten(2)
    correlations = torch.einsum("bik,bjk->bij", rows, rows) / rows.shape[-1] - torch.eye(3 * AHEAD)
    assert float(correlations.abs().max()) < 8 / rows.shape[-1] ** 0.5


def test_what_is_done_to_drawn_noise_changes_no_later_draw() -> None:
    for count in (1, 3):
        kept, changed = PerImageNoise(1, range(count), "cpu"), PerImageNoise(1, range(count), "cpu")
        x = torch.empty(count, 1, 2, 2)
        first = kept.normal_like(x)
        before = first.clone()
        for _ in range(AHEAD + 2):
            drawn = changed.normal_like(x)
            drawn.zero_()
        later = [kept.normal_like(x) for _ in range(AHEAD + 2)]
        assert torch.equal(first, before)
        assert torch.equal(later[-1], changed.normal_like(x))


def test_noise_for_another_number_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match="2 images cannot be drawn like a batch of 3"):
        PerImageNoise(0, range(2), "cpu").normal_like(torch.empty(3, 1, 2, 2))


def test_the_sweep_goes_from_t_to_1_and_is_observed(model: Model) -> None:
    seen: list[tuple[int, Tensor]] = []
    asked: list[Tensor] = []

    def energy(x: Tensor, t: Tensor) -> Tensor:
        asked.append(t)
        return 0.05 * x.square().flatten(1).sum(1)

    recipe = model.recipe
    sampler = recipe.sampler.build(recipe.context())
    noise = GeneratorNoise(generator("cpu", 0, "test"))
    x = start_noise(noise, 3, (1, 8, 8), "cpu")
    before = x.clone()
    result = sweep(energy, sampler, x, 4, noise, lambda t, x: seen.append((t, x)))
    assert [t for t, _ in seen] == [4, 3, 2, 1]
    assert [int(t[0]) for t in asked] == [4, 4, 3, 3, 2, 2, 1, 1]
    assert all(t.dtype == torch.int64 and t.shape == (3,) for t in asked)
    assert seen[-1][1] is result
    assert torch.equal(x, before), "the start is left as it was"
    norms = [float(image.norm()) for _, image in seen]
    assert norms == sorted(norms, reverse=True), "each time step goes on from the one before, down the energy"


def test_a_training_sweep_is_a_sampling_sweep(model: Model) -> None:
    """The same chain, time step by time step with refine or by model.sample."""
    recipe = model.recipe
    sampler = recipe.sampler.build(recipe.context())
    noise = PerImageNoise(9, range(4), "cpu")
    x = start_noise(noise, 4, recipe.data.shape, "cpu")
    for t in (4, 3, 2, 1):
        x = sampler.refine(model.energy, x, torch.full((4,), t), noise)
    torch.testing.assert_close(model.sample(4, seed=9), x, rtol=0, atol=TOLERANCE)


def test_overrides_change_the_sampler_only(model: Model) -> None:
    counts: list[tuple[int, int]] = []
    plain = model.sample(4, progress=lambda done, total: counts.append((done, total)))
    assert counts == [(n * 4 * 2, 4 * 4 * 2) for n in (1, 2, 3, 4)]
    counts.clear()
    other = model.sample(4, overrides={"sampler.steps": 5}, progress=lambda d, n: counts.append((d, n)))
    assert counts[-1] == (4 * 4 * 5, 4 * 4 * 5)
    assert not torch.equal(plain, other)
    assert torch.equal(model.sample(4), plain), "an override is not kept"
    still = model.sample(4, overrides={"sampler.step_size": 1e-9, "sampler.noise": 0.0})
    noise = start_noise(PerImageNoise(0, range(4), "cpu"), 4, (1, 8, 8), "cpu")
    torch.testing.assert_close(still, noise, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"time_steps": 3}, "sampler options only"),
        ({"train.steps": 3}, "sampler options only"),
        ({"sampler.stepz": 3}, "did you mean 'steps'"),
        ({"sampler.steps": "many"}, "whole number"),
        ({"sampler.noise": -1.0}, "below 0"),
    ],
)
def test_bad_overrides_are_refused(model: Model, overrides: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        model.sample(1, overrides=overrides)


@pytest.mark.parametrize(("count", "batch_size"), [(0, 64), (-1, 64), (4, 0)])
def test_counts_below_one_are_refused(model: Model, count: int, batch_size: int) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        model.sample(count, batch_size=batch_size)


def test_sampling_leaves_no_gradients_and_changes_nothing(model: Model) -> None:
    before = {key: value.clone() for key, value in model.energy.state_dict().items()}
    images = model.sample(3)
    assert not images.requires_grad
    assert images.dtype == torch.float32
    assert not model.energy.training
    for parameter in model.energy.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
    assert all(torch.equal(before[key], value) for key, value in model.energy.state_dict().items())


def test_energies_of_a_model(model: Model) -> None:
    x = model.sample(3)
    energies = model(x, 2)
    assert energies.shape == (3,)
    assert torch.equal(energies, model(x, torch.tensor([2, 2, 2])))
    assert not torch.equal(energies, model(x, 4)), "it depends on t"


def test_quadratic_energy_moments_through_the_whole_sweep() -> None:
    """On f = a/2 |x - m|^2 every step is x -> (1 - eta a/2) x + eta a/2 m + sigma n: mean and variance are exact."""
    component = default_registry().component("sampler", "langevin")
    noise = {"use": "linear", "start": 0.5, "end": 0.0}
    options = component.Options(steps=3, step_size={"use": "linear", "start": 0.6, "end": 0.1}, noise=noise)
    sampler = component(options, Context((1, 4, 4), 6))
    a, m, chains = 1.5, 0.7, 40_000
    source = GeneratorNoise(generator("cpu", 0, "moments"))
    x = start_noise(source, chains, (1, 4, 4), "cpu").double()
    mean, variance, found = 0.0, 1.0, []
    sweep(
        lambda x, t: (a / 2 * (x - m).square()).flatten(1).sum(1), sampler, x, 6, source, lambda t, x: found.append(x)
    )
    for i in range(18):
        progress = i / 17
        eta, sigma = 0.6 + (0.1 - 0.6) * progress, 0.5 * (1 - progress)
        shrink = 1 - eta * a / 2
        mean, variance = shrink * mean + (1 - shrink) * m, shrink**2 * variance + sigma**2
        if i % 3 == 2:
            x = found[i // 3]
            # 640,000 values: standard errors of about 0.001 and 0.2 %.
            assert float(x.mean()) == pytest.approx(mean, abs=0.006)
            assert float(x.var()) == pytest.approx(variance, rel=0.012)
    assert mean > 0.5


def test_quadratic_energy_reaches_its_gaussian() -> None:
    """With eta = sigma^2 and many small steps the chain's law is exp(-f): variance 1/a around m, within O(eta)."""
    component = default_registry().component("sampler", "langevin")
    sampler = component(component.Options(steps=40, step_size=0.04, noise=0.2), Context((1, 2, 2), 5))
    source = GeneratorNoise(generator("cpu", 0, "gauss"))
    x = start_noise(source, 50_000, (1, 2, 2), "cpu").double()
    a, m = 4.0, -0.3
    x = sweep(lambda x, t: (a / 2 * (x - m).square()).flatten(1).sum(1), sampler, x, 5, source)
    assert float(x.mean()) == pytest.approx(m, abs=0.01)
    # The discretization's own stationary variance: sigma^2 / (1 - (1 - eta a/2)^2), 4 % above 1/a.
    assert float(x.var()) == pytest.approx(0.04 / (1 - (1 - 0.08) ** 2), rel=0.02)


def test_uint8_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(from_uint8(every)), every)
    assert to_uint8(torch.tensor([-3.0, -1.0, 1.0, 9.0])).tolist() == [0, 0, 255, 255]
    assert (float(from_uint8(every).min()), float(from_uint8(every).max())) == (-1.0, 1.0)


def test_samples_of_a_loaded_file_are_those_of_the_training_grid(model: Model, tmp_path: Path) -> None:
    """The same weights, seed and sweep: the grid of a run's last step can be drawn again from its model file."""
    from PIL import Image

    from ebmkit.pictures import save_grid

    recipe = tiny_recipe(str(model.recipe.data.shards), train__steps=2, train__sample_every=2)
    folder = new_trainer(tmp_path / "run", recipe).train().folder
    images = load_model(folder / "model.safetensors", "cpu").sample(4, seed=recipe.seed)
    save_grid(tmp_path / "again.png", images)
    assert Image.open(tmp_path / "again.png").tobytes() == Image.open(folder / "samples/step-000000002.png").tobytes()


def test_samplers_are_called_with_gradients_switched_off_as_in_training(model: Model) -> None:
    seen = []

    class Looks(Sampler):
        name = "looks"
        steps = 1

        def refine(self, energy: Any, x: Tensor, t: Tensor, noise: Any) -> Tensor:
            seen.append(torch.is_grad_enabled())
            return x

    sampler = Looks(Looks.Options(), model.recipe.context())
    sweep(model.energy, sampler, torch.zeros(1, *model.image_shape), 3, GeneratorNoise(torch.Generator()))
    assert seen == [False] * 3
    assert torch.is_grad_enabled()
