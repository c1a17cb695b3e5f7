"""The log-likelihood of a model: bits, bounds, doubts, and a model whose likelihood is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import ebmkit
from ebmkit.annealing.estimate import EDGE, Annealing, bits_per_dim, dequantised, estimate_likelihood
from ebmkit.data import all_images
from ebmkit.errors import BadInput
from ebmkit.model import Model
from ebmkit.testing.analytic import Bowl
from run_helpers import new_trainer, run_cli, tiny_recipe, write_shards

SMALL = Annealing(chains=40, stops=300, leaps=3)
CENTER, WIDTH = -0.3, 0.7


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def model(shards: str) -> Model:
    return Model(Bowl(CENTER, WIDTH), tiny_recipe(shards), "cpu", {})


def test_a_uniform_density_over_the_cube_has_8_bits() -> None:
    assert bits_per_dim(-192 * math.log(2 * EDGE), 192) == pytest.approx(8)
    # A density twice as high in every dimension saves one bit in each.
    assert bits_per_dim(-192 * math.log(EDGE), 192) == pytest.approx(7)


def test_dequantised_images_stay_in_the_cube_and_keep_their_levels() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(40).view(40, 1, 16, 16)
    x = dequantised(images, torch.Generator().manual_seed(0))
    assert float(x.abs().max()) <= EDGE
    levels = (x + 1) * 127.5
    assert torch.equal(levels.round().clamp(0, 255).to(torch.uint8), images)
    offset = levels - images.float()
    assert float(offset.mean()) == pytest.approx(0, abs=0.02)
    assert float(offset.std()) == pytest.approx(math.sqrt(1 / 12), rel=0.02)


@pytest.mark.parametrize("support", ["images", "all"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_gaussian_models_likelihood(model: Model, shards: str, support: str, temperature: float) -> None:
    """Closed form: `log N(x; center, temperature width^2)`, cut off at the cube and renormalised for `images`."""
    found = estimate_likelihood(
        model,
        shards,
        temperature=temperature,
        support=support,
        annealing=SMALL,
        seed=1,  # type: ignore[arg-type]
    )
    images = all_images(model.recipe.data).float() / 127.5 - 1
    width = WIDTH * math.sqrt(temperature)
    # What dequantisation adds to the mean square, in closed form.
    squares = ((images - CENTER) ** 2).double().flatten(1).sum(1) + 64 / 12 / 127.5**2
    truth = -float(squares.mean()) / (2 * width**2) - 64 * math.log(width * math.sqrt(2 * math.pi))
    if support == "images":
        normal = torch.distributions.Normal(CENTER, width)
        truth -= 64 * float((normal.cdf(torch.tensor(EDGE)) - normal.cdf(torch.tensor(-EDGE))).log())
    assert found["log_partition_error"] < 0.5
    # The images are the same on both sides: what is left is the error of log Z.
    assert abs(found["log_likelihood"] - truth) < 4 * found["log_partition_error"] + 0.02
    assert found["lower_bound"] < found["log_likelihood"] + 0.5
    assert found["bits_per_dim"] == pytest.approx(bits_per_dim(found["log_likelihood"], 64))
    low, high = found["bits_per_dim_interval"]
    assert low < found["bits_per_dim"] < high < found["bits_per_dim_upper_bound"] + 0.5
    assert found["images"] == 48
    assert found["backward_chains"] == 40
    assert found["held_out"]
    json.dumps(found)


def test_too_little_effort_is_not_believed(model: Model, shards: str) -> None:
    said: list[str] = []
    found = estimate_likelihood(
        model, shards, temperature=1e-4, annealing=Annealing(chains=8, stops=3, leaps=1), say=said.append
    )
    assert not found["believable"]
    assert found["effective_sample_size"] < 3
    assert any("effective sample size is" in line and "8 chains" in line for line in said)
    enough = estimate_likelihood(model, shards, annealing=Annealing(chains=40, stops=1200, leaps=3))
    assert enough["believable"], enough["warnings"]


def test_mass_that_is_not_where_the_images_are(shards: str) -> None:
    """A wide bowl over all real images; within their cube it is an ordinary density."""
    wide, said = Model(Bowl(0.0, 20.0), tiny_recipe(shards), "cpu", {}), []
    found = estimate_likelihood(wide, shards, support="all", annealing=SMALL, say=said.append)
    assert not found["believable"]
    assert any("--support images" in line for line in said)
    inside = estimate_likelihood(wide, shards, annealing=SMALL)
    assert not any("--support" in line for line in inside["warnings"])
    assert inside["bits_per_dim"] == pytest.approx(8, abs=0.03)


def test_what_cannot_be_used(model: Model, shards: str) -> None:
    with pytest.raises(BadInput, match="time steps are 1 to 4"):
        estimate_likelihood(model, shards, t=5)
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(BadInput, match="--temperature"):
            estimate_likelihood(model, shards, temperature=temperature)
    with pytest.raises(BadInput, match="at least 2 chains"):
        Annealing(chains=1)


def test_the_command_line(shards: str, tmp_path: Path) -> None:
    path = new_trainer(tmp_path / "run", tiny_recipe(shards, train__steps=2)).train().folder / "model.safetensors"
    effort = ("--chains", 8, "--stops", 6, "--leaps", 2)
    done = run_cli("likelihood", path, "--data", shards, *effort, "--json", "--device", "cpu", "--temperature", 0.5)
    assert done.code == 0, done.err
    assert json.loads(done.out) == ebmkit.likelihood(
        path, shards, temperature=0.5, chains=8, stops=6, leaps=2, images=1000
    )
    plain = run_cli("likelihood", path, *effort)
    assert plain.out.startswith("log-likelihood ")
    assert "bits/dim" in plain.out
    assert "held-out" in plain.err
    assert run_cli("likelihood", path, "--t", 9).code == 2
    assert run_cli("likelihood", path, "--temperature", 0).code == 2
