"""Out-of-distribution detection: exact areas, intervals that cover, and a model whose energies are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ebmkit
from ebmkit.detection import auroc, auroc_interval, detect, false_positive_rate
from ebmkit.energy_model import EnergyModel
from ebmkit.errors import BadInput
from ebmkit.model import Model
from ebmkit.testing.analytic import Bowl
from run_helpers import new_trainer, run_cli, tiny_recipe, write_shards


def by_pairs(data: Tensor, other: Tensor) -> float:
    """The definition: every pair counted."""
    difference = other[None, :] - data[:, None]
    return float((difference > 0).double().mean() + (difference == 0).double().mean() / 2)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_the_area_is_that_of_all_pairs_with_ties(levels: int) -> None:
    random = torch.Generator().manual_seed(levels)
    data = torch.randint(0, levels, (37,), generator=random).double()
    other = torch.randint(0, levels, (53,), generator=random).double() + 1
    assert auroc(data, other) == pytest.approx(by_pairs(data, other), abs=1e-12)
    assert auroc(data, other) + auroc(other, data) == pytest.approx(1)


def test_areas_that_are_plain() -> None:
    low, high = torch.zeros(3).double(), torch.ones(4).double()
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1, 0, 0.5)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Two normal distributions `d` apart have the area `Phi(d / sqrt 2)`."""
    random = torch.Generator().manual_seed(0)
    for apart in (0.5, 2.5):
        truth, covered, repeats = float(torch.special.ndtr(torch.tensor(apart / math.sqrt(2)))), 0, 200
        for _ in range(repeats):
            data = torch.randn(40, generator=random).double()
            other = torch.randn(60, generator=random).double() + apart
            low, high = auroc_interval(auroc(data, other), 40, 60)
            covered += low <= truth <= high
        # The standard error of the share is 1.5 %.
        assert 0.9 <= covered / repeats <= 0.99, (apart, covered)


def test_an_interval_has_a_width_at_both_ends_and_shrinks() -> None:
    low, high = auroc_interval(1.0, 20, 20)
    assert 0.8 < low < 0.95
    assert high == 1
    assert auroc_interval(0.0, 20, 20) == pytest.approx((0.0, 1 - low), abs=1e-6)
    assert 0.999 < auroc_interval(1.0, 5000, 5000)[0] < 1
    wide, narrow = auroc_interval(0.7, 20, 20), auroc_interval(0.7, 2000, 2000)
    assert wide[0] < narrow[0] < 0.7 < narrow[1] < wide[1]


def test_the_threshold_accepts_95_percent_of_the_data() -> None:
    data = torch.arange(1, 101).double()
    assert false_positive_rate(data, torch.tensor([94.0, 95.0, 96.0, 200.0]).double()) == 0.5
    assert false_positive_rate(data[:2], torch.tensor([1.0, 2.0, 3.0]).double()) == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def model(shards: str) -> Model:
    """Low around grey, whatever it was trained on."""
    return Model(Bowl(0.0, 1.0), tiny_recipe(shards), "cpu", {})


def test_noise_is_told_apart(model: Model, shards: str) -> None:
    found = detect(model, "noise", shards)
    energy = model.energy
    assert isinstance(energy, Bowl)
    # 64 squares of standard normals, halved: mean 32, deviation sqrt(32).
    assert found["against_energy"]["mean"] == pytest.approx(32, abs=4 * math.sqrt(32 / 48))
    assert found["against_images"] == found["images"] == 48
    assert found["auroc"] > 0.95
    assert found["interval"][0] < found["auroc"] <= found["interval"][1]
    assert found["fpr_at_95_tpr"] < 0.1
    assert found["held_out"]
    assert detect(model, "noise", shards, seed=1)["auroc"] != found["auroc"] or found["auroc"] == 1
    assert detect(model, "noise", shards, seed=0) == found
    json.dumps(found)


def test_the_same_shards_are_not_told_apart(model: Model, shards: str) -> None:
    found = detect(model, shards, shards, limit=20)
    assert found["auroc"] == pytest.approx(0.5)
    assert found["images"] == found["against_images"] == 20


def test_batches_and_time_steps(shards: str, tmp_path: Path) -> None:
    moving = Model(Bowl(0.0, 1.0, shift=0.3), tiny_recipe(shards), "cpu", {})
    one, four = detect(moving, "noise", shards, t=1), detect(moving, "noise", shards, t=4)
    assert one["energy"]["mean"] < four["energy"]["mean"]
    assert detect(moving, "noise", shards, batch_size=7) == one
    with pytest.raises(BadInput, match="time steps are 1 to 4"):
        detect(moving, "noise", shards, t=5)


def test_the_models_own_data_are_warned_of(model: Model) -> None:
    said: list[str] = []
    assert not detect(model, "noise", say=said.append)["held_out"]
    assert "trained on" in said[0]


def test_other_sizes_are_refused_or_resized(model: Model, shards: str, tmp_path: Path) -> None:
    large = write_shards(tmp_path / "large", shards=1, per_shard=5, size=16, channels=3)
    with pytest.raises(BadInput, match="16x16"):
        detect(model, large, shards)
    assert detect(model, large, shards, resize=True)["against_images"] == 5


def test_energies_that_are_not_finite(shards: str) -> None:
    class Broken(EnergyModel):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x.flatten(1).sum(1) * torch.nan

    with pytest.raises(BadInput, match="48 of 48 images are not finite"):
        detect(Model(Broken(), tiny_recipe(shards), "cpu", {}), "noise", shards)


def test_a_model_file_does_not_say_what_is_run(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    recipe = tiny_recipe(f"pipe:touch {tmp_path}/ran; cat {tmp_path}/shards/train-000000.tar")
    with pytest.raises(BadInput, match="name the data with --data"):
        detect(Model(Bowl(), recipe, "cpu", {}), "noise")
    assert not (tmp_path / "ran").exists()


def test_the_command_line(shards: str, tmp_path: Path) -> None:
    path = new_trainer(tmp_path / "run", tiny_recipe(shards, train__steps=2)).train().folder / "model.safetensors"
    done = run_cli("ood", path, "--against", "noise", "--data", shards, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    assert json.loads(done.out) == ebmkit.ood(path, "noise", shards)
    plain = run_cli("ood", path, "--against", "noise", "--images", 10)
    assert plain.out.startswith("AUROC ")
    assert "10 of noise" in plain.out
    assert "--data" in plain.err
    assert run_cli("ood", path, "--against", tmp_path / "none.tar").code == 2
    assert run_cli("ood", path, "--against", "noise", "--t", 9).code == 2
