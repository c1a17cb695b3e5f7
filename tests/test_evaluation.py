"""The Fréchet distance, and measuring a model by it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ebmkit_langevin.sampler import Langevin
from torch import Tensor

from ebmkit import BadInput
from ebmkit.data import all_images
from ebmkit.evaluation import evaluate_model, frechet_distance
from ebmkit.model import Model, load_model
from ebmkit.sampling import from_uint8
from run_helpers import new_trainer, tiny_recipe, write_shards


def exactly(mean: list[float], deviation: list[float]) -> Tensor:
    """Rows whose sample mean and (diagonal) covariance are exactly these: 2 D rows."""
    d = len(mean)
    scale = torch.tensor(deviation, dtype=torch.float64) * math.sqrt((2 * d - 1) / 2)
    return torch.cat([torch.diag(scale), -torch.diag(scale)]) + torch.tensor(mean, dtype=torch.float64)


def test_the_distance_to_itself_is_0() -> None:
    x = torch.randn(200, 12, dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x[torch.randperm(200)]) == pytest.approx(0, abs=1e-9)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    a, b = exactly([0, 1, 2], [1, 2, 3]), exactly([1, 1, 0], [2, 0.5, 3])
    torch.testing.assert_close(torch.cov(a.T), torch.diag(torch.tensor([1.0, 4, 9], dtype=torch.float64)))
    # |difference of means|^2 + sum of (difference of deviations)^2
    assert frechet_distance(a, b) == pytest.approx((1 + 0 + 4) + (1 + 2.25 + 0), abs=1e-9)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), abs=1e-9)


def test_a_shift_and_a_single_dimension() -> None:
    x = torch.randn(50, 5, dtype=torch.float64)
    assert frechet_distance(x, x + 0.5) == pytest.approx(5 * 0.25, abs=1e-9)
    y = torch.randn(50, 1, dtype=torch.float64)
    assert frechet_distance(y, 3 * y) == pytest.approx(float(4 * y.mean() ** 2 + 4 * y.var()), rel=1e-9)


def test_it_agrees_with_scipys_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    a = torch.randn(300, 8, generator=generator, dtype=torch.float64) @ mix
    b = torch.randn(120, 8, generator=generator, dtype=torch.float64) * 2 + 1
    s, r = torch.cov(a.T), torch.cov(b.T)
    root = linalg.sqrtm((s @ r).numpy()).real
    expected = float((a.mean(0) - b.mean(0)).square().sum() + s.trace() + r.trace()) - 2 * float(root.trace())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_fewer_rows_than_dimensions() -> None:
    x, y = torch.randn(6, 30), torch.randn(9, 30) + 1
    assert math.isfinite(frechet_distance(x, y))
    assert frechet_distance(x, y) > 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("evaluation")
    recipe = tiny_recipe(write_shards(folder / "shards"), train__steps=2)
    return load_model(new_trainer(folder / "run", recipe).train().folder / "model.safetensors", "cpu")


def test_a_model_is_measured_against_all_images_of_its_recipe(model: Model) -> None:
    result = evaluate_model(model, count=30, seed=4, batch_size=8)
    real = from_uint8(all_images(model.recipe.data)).flatten(1)
    expected = frechet_distance(model.sample(30, seed=4).clamp(-1, 1).flatten(1), real)
    assert result is not None
    assert result.pop("versions").keys() == {"ebmkit", "torch"}
    assert result == {
        "pixel_frechet_distance": pytest.approx(expected, rel=1e-4),
        "samples": 30,
        "images": 48,
        "seed": 4,
        "data": model.recipe.data.shards,
        "extractor": None,
    }
    assert expected > 1, "two steps train nothing"


def test_other_shards_may_be_named(model: Model, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "other", shards=1, per_shard=10, seed=9)
    assert evaluate_model(model, shards, count=4)["images"] == 10
    with pytest.raises(BadInput, match="there is no file"):
        evaluate_model(model, str(tmp_path / "none.tar"), count=4)
    larger = write_shards(tmp_path / "larger", size=16)
    with pytest.raises(BadInput, match="16x16"):
        evaluate_model(model, larger, count=4)


def test_a_model_file_does_not_say_what_is_fetched_or_where_to_keep_it(tmp_path: Path) -> None:
    """A model file may come from anyone; `--data` is the user's own."""
    write_shards(tmp_path / "shards")
    chosen = f"pipe:touch {tmp_path}/ran; cat {tmp_path}/shards/train-000000.tar"
    recipe = tiny_recipe(chosen, train__steps=1, data__cache_dir=str(tmp_path / "kept"))
    trained = load_model(new_trainer(tmp_path / "run", recipe).train().folder / "model.safetensors", "cpu")
    (tmp_path / "ran").unlink()
    shutil.rmtree(tmp_path / "kept")
    with pytest.raises(BadInput, match="name the data with --data"):
        evaluate_model(trained, count=4)
    assert not (tmp_path / "ran").exists()
    assert evaluate_model(trained, chosen, count=4)["images"] > 0
    assert (tmp_path / "ran").exists()
    assert not (tmp_path / "kept").exists()


def test_samples_that_are_not_finite_are_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    refine = Langevin.refine

    def loses(self: Langevin, energy: Any, x: Tensor, t: Tensor, noise: Any) -> Tensor:
        after = refine(self, energy, x, t, noise)
        after[0] = torch.nan
        return after

    monkeypatch.setattr(Langevin, "refine", loses)
    with pytest.raises(BadInput, match="1 of 8 samples have pixels that are not finite"):
        evaluate_model(model, count=8)
