"""Exported folders: whole or not there, with a card that tells the truth and a recipe that gives nothing away."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

import ebmkit
from ebmkit.files import folder_written_whole
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.sharing import CARD, FILES, MODEL, RECIPE, SAMPLES
from ebmkit.sharing.public import WITHHELD, published
from ebmkit.sharing.records import evaluations_of, training_seconds
from run_helpers import contents, environment, new_trainer, run_cli, tiny_recipe, write_shards


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps, checkpoints of 2 and 4, a grid of step 4; two evaluations of each, and a line that is cut off."""
    folder = tmp_path_factory.mktemp("sharing")
    recipe = tiny_recipe(
        write_shards(folder / "shards"), train__steps=4, train__sample_every=4, trackers=[{"use": "csv"}]
    )
    done = new_trainer(folder / "run", recipe).train().folder
    rows = [
        {"step": 4, "data": "held/out.tar", "samples": 500, "images": 48, "seed": 7, "extractor": None,
         "metrics": {"pixel_frechet_distance": 12.345}},
        {"step": 2, "metrics": {"fid": 99.0}},
        {"step": 4, "metrics": {"fid": 77.0}, "overrides": {"sampler.steps": 6}},
        {"step": 4, "metrics": {"kid[lite]": 0.25, "broken": None}},
    ]  # fmt: skip
    (done / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "met')
    return done


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    assert ebmkit.export(run, out, license_id="apache-2.0") == 4
    return out


def test_a_folder_holds_four_files_and_loads(run: Path, exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == sorted(FILES)
    model = ebmkit.load(exported)
    assert torch.equal(model.sample(2), ebmkit.load(run / MODEL).sample(2))
    assert torch.equal(model.sample(2), ebmkit.load(run).sample(2)), "a run folder loads, too"
    assert ebmkit.check(exported / RECIPE).time_steps == 4
    table = tomllib.loads((exported / RECIPE).read_text())
    assert table["trackers"] == []
    with safe_open(exported / MODEL, framework="pt") as file:
        assert json.loads(file.metadata()["recipe"])["data"]["shards"] == table["data"]["shards"]
    assert (exported / SAMPLES).read_bytes() == (run / "samples" / "step-000000004.png").read_bytes()


def test_an_older_step_has_samples_of_its_own_and_its_own_metrics(run: Path, tmp_path: Path) -> None:
    done = run_cli("export", run, "--out", tmp_path / "older", "--step", 2)
    assert done.code == 0, done.err
    assert done.out.startswith("step 2 of")
    card = (tmp_path / "older" / CARD).read_text()
    assert "`model.sample(4, seed=0)`" in card
    assert "| FID | 99 |" in card
    assert "Fréchet" not in card
    from ebmkit.pictures import save_grid

    save_grid(tmp_path / "again.png", ebmkit.load(tmp_path / "older").sample(4, seed=0))
    one, other = (Image.open(path).tobytes() for path in (tmp_path / "again.png", tmp_path / "older" / SAMPLES))
    assert one == other


def test_the_card_says_what_is_known(run: Path, exported: Path) -> None:
    card = (exported / CARD).read_text()
    assert "| pixel Fréchet distance (not FID) | 12.35 | 500 | 48 | 7 |" in card
    assert "| kid[lite] | 0.25 | ? | ? | ? |" in card
    assert "| real images seen | 32 |" in card
    assert "| gradient evaluations of chains | 64 of an image (K = 2) |" in card
    assert "| one sample | 8 gradient evaluations (T = 4) |" in card
    parameters = sum(p.numel() for p in ebmkit.load(exported).energy.parameters())
    assert f"{parameters:,} parameters" in card
    assert "99" not in re.sub(r"[\d,]{4,}", "", card.partition("## Versions")[0]), "that was another step"
    body = card.partition("```python\n")[2].partition("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", body + "\nprint(tuple(images.shape), len(energies))"],
        cwd=exported, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "(64, 1, 8, 8) 64", done.stderr


def test_the_front_matter_is_what_the_hub_reads(exported: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(exported / CARD).data
    assert (data.license, data.library_name) == ("apache-2.0", "ebmkit")
    assert data.pipeline_tag == "unconditional-image-generation"
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"pixel_frechet_distance": 12.345, "kid[lite]": 0.25}


def test_nothing_is_overwritten(run: Path, exported: Path, tmp_path: Path) -> None:
    before = contents(exported)
    done = run_cli("export", run, "--out", exported)
    assert done.code == 2
    assert "never overwritten" in done.err
    assert contents(exported) == before
    (tmp_path / "empty").mkdir()
    assert run_cli("export", run, "--out", tmp_path / "empty").code == 0
    assert run_cli("export", tmp_path, "--out", tmp_path / "x").code == 2
    assert run_cli("export", run, "--out", tmp_path / "x", "--step", 3).code == 2
    assert not (tmp_path / "x").exists()
    assert run_cli("export", run, "--out", tmp_path / "one.safetensors").code == 0
    assert (tmp_path / "one.safetensors").is_file()


KILLED = """
import os, signal, sys
import ebmkit.sharing.folder as folder
def die(*arguments): os.kill(os.getpid(), signal.SIGKILL)
folder.write_card = die
import ebmkit
ebmkit.export(sys.argv[1], sys.argv[2])
"""


def test_a_killed_export_leaves_no_half_folder(run: Path, tmp_path: Path) -> None:
    """Killed after the model was written and before the card was."""
    out = tmp_path / "folder"
    command = [sys.executable, "-c", KILLED, str(run), str(out)]
    done = subprocess.run(command, env=environment(), timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert any((path / MODEL).is_file() for path in tmp_path.iterdir()), "it came that far"
    assert run_cli("export", run, "--out", out).code == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with folder_written_whole(tmp_path / "a") as temporary:
            (temporary / "x").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def data_of(shards: object) -> object:
    recipe: Recipe = tiny_recipe("digits", data__shards=shards, data__cache_dir="/home/someone", data__make="secret")
    shown = published(recipe).data
    assert (shown.cache_dir, shown.make) == (None, None)
    return shown.shards


def test_what_a_recipe_says_of_a_machine_is_not_published() -> None:
    assert data_of("digits") == "digits"
    assert data_of("shards/train-*.tar") == "shards/train-*.tar"
    assert data_of("/home/someone/train-*.tar") == "train-*.tar"
    assert data_of("pipe:curl -H 'Authorization: secret' https://x.org/a.tar") == WITHHELD
    assert data_of("https://user:secret@x.org/a-{0..3}.tar?signature=secret#x") == "https://x.org/a-{0..3}.tar"
    assert data_of(["pipe:a secret", "pipe:another secret", "b.tar"]) == (WITHHELD, "b.tar")


def test_a_run_without_records(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert [row["step"] for row in evaluations_of(folder, 4)] == [4, 4]
    assert (training_seconds(folder, 4) or 0) > (training_seconds(folder, 2) or 0) > 0
    (tmp_path / "run" / "evaluations.jsonl").unlink()
    folder.metrics.unlink()
    assert evaluations_of(folder, 4) == []
    assert training_seconds(folder, 4) is None
    ebmkit.export(folder.folder, tmp_path / "out")
    card = (tmp_path / "out" / CARD).read_text()
    assert "was not evaluated" in card
    assert "not recorded" in card
    assert "license" not in card
