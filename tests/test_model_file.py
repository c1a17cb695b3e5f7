"""The model file: it describes itself, and whatever is wrong with it is one clear message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ebmkit
from ebmkit import BadInput, PluginMissing
from ebmkit.model import load_model, save_model
from ebmkit.pipeline import build_energy, build_regularizers
from ebmkit.recipe import Recipe
from run_helpers import (
    Command,
    environment,
    new_trainer,
    run_cli,
    run_process,
    tiny_recipe,
    tiny_table,
    write_recipe,
    write_shards,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def recipe(shards: str) -> Recipe:
    return tiny_recipe(shards, train__steps=2)


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_trainer(tmp_path_factory.mktemp("trained") / "run", recipe).train().folder / "model.safetensors"


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def changed(trained: Path, path: Path, metadata: Mapping[str, str | None] = {}, **weights: Any) -> Path:
    """A copy of the model file with other metadata (None removes an entry) or weights."""
    entries = metadata_of(trained) | dict(metadata)
    kept = {key: value for key, value in entries.items() if value is not None}
    save_file(load_file(trained) | weights, path, kept)
    return path


def test_metadata_is_complete(trained: Path, recipe: Recipe) -> None:
    metadata = metadata_of(trained)
    assert metadata["format"] == "ebmkit-model"
    assert metadata["format_version"] == "1"
    assert metadata["ebmkit"] == ebmkit.__version__
    assert metadata["torch"] == str(torch.__version__)
    assert metadata["plugin_api"] == "1"
    assert metadata["name"] == "tiny"
    assert metadata["steps"] == "2"
    assert metadata["images_seen"] == "16"
    assert json.loads(metadata["recipe"]) == json.loads(json.dumps(recipe.to_table()))
    plugins = json.loads(metadata["plugins"])
    parts = ["buffer.cyclic", "energy.unet", "objective.contrastive_divergence", "regularizer.wgan_lp"]
    assert sorted(plugins) == [*parts, "sampler.langevin", "schedule.constant", "schedule.cosine"]
    assert set(plugins.values()) == {f"ebmkit {ebmkit.__version__}"}


def test_weights_are_the_average_and_come_back_exactly(recipe: Recipe, tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path / "run", recipe)
    trainer.train()
    model = load_model(tmp_path / "run" / "model.safetensors", "cpu")
    assert model.recipe == recipe
    assert model.image_shape == (1, 8, 8)
    loaded, average, raw = model.energy.state_dict(), trainer.averaged.state_dict(), trainer.model.state_dict()
    assert loaded.keys() == average.keys()
    assert all(torch.equal(loaded[key], average[key]) for key in average)
    assert any(not torch.equal(loaded[key], raw[key]) for key in raw)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 4])
    with torch.no_grad():
        assert torch.equal(model(x, t), trainer.averaged.eval()(x, t))


def test_the_training_data_is_not_needed(trained: Path, tmp_path: Path) -> None:
    table = json.loads(metadata_of(trained)["recipe"])
    table["data"]["shards"] = "nowhere/train-*.tar"
    path = changed(trained, tmp_path / "m.safetensors", {"recipe": json.dumps(table)})
    assert torch.equal(load_model(path).sample(2), load_model(trained).sample(2))


def test_spectral_norm_models_load(shards: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(shards, train__steps=2, regularizers=[{"use": "spectral_norm", "power_iterations": 2}])
    trainer = new_trainer(tmp_path / "run", recipe)
    trainer.train()
    model = load_model(tmp_path / "run" / "model.safetensors", "cpu")
    assert any("parametrizations" in key for key in model.energy.state_dict())
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 4])
    with torch.no_grad():
        assert torch.equal(model(x, t), trainer.averaged.eval()(x, t))


def test_saving_again_gives_the_same_weights(trained: Path, tmp_path: Path) -> None:
    model = load_model(trained, "cpu")
    save_model(tmp_path / "again.safetensors", model.energy, model.recipe, 16, 2)
    one, other = load_file(trained), load_file(tmp_path / "again.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert metadata_of(trained) == metadata_of(tmp_path / "again.safetensors")


def test_a_truncated_file_is_refused_at_any_length(trained: Path, tmp_path: Path) -> None:
    data, path = trained.read_bytes(), tmp_path / "cut.safetensors"
    for length in [*range(24), *range(24, len(data), len(data) // 40), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(BadInput, match=r"cut\.safetensors: not a complete safetensors file"):
            load_model(path)


def test_changed_bytes_in_the_header_never_end_in_another_error(trained: Path, tmp_path: Path) -> None:
    data, path, refused = trained.read_bytes(), tmp_path / "bad.safetensors", 0
    header = 8 + int.from_bytes(data[:8], "little")
    places = range(0, header, header // 150)
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :])
        try:
            load_model(path)
        except BadInput:
            refused += 1
    assert refused > len(places) // 3


def test_other_safetensors_files_are_not_ours(trained: Path, tmp_path: Path) -> None:
    for name, metadata in {"none": None, "other": {"format": "pt"}}.items():
        save_file({"x": torch.ones(1)}, tmp_path / name, metadata)
        with pytest.raises(BadInput, match="not one that ebmkit exported"):
            load_model(tmp_path / name)
    state = next((trained.parent / "checkpoints").glob("*/state.safetensors"))
    with pytest.raises(BadInput, match="not one that ebmkit exported"):
        load_model(state)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(BadInput, match="no such model file"):
            load_model(path)


@pytest.mark.parametrize("version", ["2", "99", "x", None])
def test_another_format_version_asks_for_an_upgrade(version: str | None, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="upgrade ebmkit"):
        load_model(changed(trained, tmp_path / "m.safetensors", {"format_version": version}))


@pytest.mark.parametrize("entry", ["recipe", "plugins"])
@pytest.mark.parametrize("value", [None, "", "{", "[]", "3", "null", "[" * 100_000], ids=range(7))
def test_damaged_metadata_is_refused(entry: str, value: str | None, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"m\.safetensors: its metadata is damaged"):
        load_model(changed(trained, tmp_path / "m.safetensors", {entry: value}))


def test_a_recipe_that_does_not_bind_any_more(trained: Path, tmp_path: Path) -> None:
    table = json.loads(metadata_of(trained)["recipe"])
    table["energy"]["chanels"] = table["energy"].pop("channels")
    with pytest.raises(BadInput, match=r"does not fit the installed plugins(.|\n)*did you mean 'channels'"):
        load_model(changed(trained, tmp_path / "m.safetensors", {"recipe": json.dumps(table)}))


def test_weights_that_do_not_fit(trained: Path, tmp_path: Path) -> None:
    some = next(iter(load_file(trained)))
    for name, weights in {"shape": {some: torch.ones(77)}, "extra": {"more": torch.ones(1)}}.items():
        with pytest.raises(BadInput, match="its weights do not fit its recipe"):
            load_model(changed(trained, tmp_path / f"{name}.safetensors", **weights))
    weights = load_file(trained)
    del weights[some]
    save_file(weights, tmp_path / "fewer.safetensors", metadata_of(trained))
    with pytest.raises(BadInput, match=some):
        load_model(tmp_path / "fewer.safetensors")


def test_pickles_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    path = tmp_path / "model.safetensors"
    for legacy in (False, True):
        torch.save({"weights": Bomb()}, path, _use_new_zipfile_serialization=not legacy)
        result = run_cli("sample", path, "--out", tmp_path / "x.png")
        assert result.code == 2
        assert "not a complete safetensors file" in result.err
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "x.png").exists()


PLUGIN = '''
"""A plugin as somebody else would write it."""

import ebmkit
from ebmkit import BaseOptions, Regularizer, Schedule, Term

PLUGIN_API = 1


class Gentle(Regularizer):
    """Keeps the energies small."""

    name = "gentle"

    class Options(BaseOptions):
        """Options."""

        weight: float = 0.1

    def penalty(self, pairs, generator):
        positive, negative = pairs.energies
        value = self.options.weight * (positive.abs() + negative.abs()).mean()
        return Term(value, {"penalty": value.detach()})


class Hill(Schedule):
    """Up and down."""

    name = "hill"

    def __call__(self, progress):
        return 0.001 + progress * (1 - progress)


@ebmkit.hookimpl
def ebmkit_regularizers():
    return [Gentle]


@ebmkit.hookimpl
def ebmkit_schedules():
    return [Hill]
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds an installed distribution, `ebm-gentle` 1.2."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "ebm_gentle.py").write_text(PLUGIN)
    info = folder / "ebm_gentle-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ebm-gentle\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[ebmkit]\ngentle = ebm_gentle\n")
    return folder


def test_a_model_whose_plugins_are_not_installed(plugin: Path, shards: str, tmp_path: Path) -> None:
    for name, changes in {
        "gentle": {"regularizers": [{"use": "gentle", "weight": 0.2}]},
        "hill": {"sampler": {"use": "langevin", "steps": 2, "noise": {"use": "hill"}}},
    }.items():
        write_recipe(tmp_path / f"{name}.toml", tiny_table(shards, train__steps=1, **changes))
        with_plugin = environment(PYTHONPATH=str(plugin))
        made = run_process("train", f"{name}.toml", "--run-dir", name, cwd=tmp_path, env=with_plugin)
        assert made.code == 0, made.err
        without = Command("sample", f"{name}/model.safetensors", "--count", 1, "--out", "x.png", cwd=tmp_path).wait()
        kind = "regularizer" if name == "gentle" else "schedule"
        assert without.code == 2
        assert f"needs {kind} '{name}' from ebm-gentle 1.2, which cannot be used here" in without.err
        assert "Traceback" not in without.err
        assert not (tmp_path / "x.png").exists()
        with pytest.raises(PluginMissing, match="ebm-gentle"):
            load_model(tmp_path / name / "model.safetensors")
    used = run_process(
        "sample", "gentle/model.safetensors", "--count", 1, "--out", "x.png", cwd=tmp_path, env=with_plugin
    )
    assert used.code == 0, used.err


def test_a_device_that_is_not_there(trained: Path) -> None:
    for device in ("cuda:7", "tpu", "meta", ""):
        with pytest.raises(BadInput, match="device"):
            load_model(trained, device)


def test_the_seed_of_the_recipe_gives_the_same_initial_weights(recipe: Recipe) -> None:
    torch.manual_seed(1)
    one = build_energy(recipe, recipe.context(), build_regularizers(recipe, recipe.context()))
    state = torch.random.get_rng_state()
    other = build_energy(recipe, recipe.context(), build_regularizers(recipe, recipe.context()))
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_another_plugin_api_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="PLUGIN_API 99"):
        ebmkit.load(changed(trained, tmp_path / "model.safetensors", {"plugin_api": "99"}))


@pytest.mark.parametrize(
    ("part", "key", "value"), [("sampler", "step_size", -1.0), ("sampler", "steps", 100_000), ("energy", "channels", 0)]
)
def test_a_recipe_that_cannot_work_is_refused(
    part: str, key: str, value: object, trained: Path, tmp_path: Path
) -> None:
    table = json.loads(metadata_of(trained)["recipe"]) | {"time_steps": 100_000}
    table[part][key] = value
    with pytest.raises(BadInput, match=key):
        ebmkit.load(changed(trained, tmp_path / "model.safetensors", {"recipe": json.dumps(table)}))
