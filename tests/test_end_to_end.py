"""Shipped recipes on real photographs, as a user types the commands: train, resume, sample, in a shell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from run_helpers import RECIPES, environment
from shards_helper import REAL_DATA

EBMKIT = f"{sys.executable} -m ebmkit"


def shell(command: str, folder: Path) -> str:
    """What a command prints; bash, so that braces are expanded as they are for a user."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not (REAL_DATA / "cifar10").is_dir(), reason="needs ../shared/data/cifar10")
def test_thirty_steps_of_the_cifar10_resnet_on_its_images(tmp_path: Path) -> None:
    shards = REAL_DATA / "cifar10" / "train-{000000..000001}.tar.gz"
    small = "--set energy.channels=8 --set train.batch_size=8 --set buffer.size=32 --set train.log_every=1"
    shell(
        f"{EBMKIT} train {RECIPES / 'cifar10_resnet.toml'} --set data.shards={shards} {small} --set data.cache=off "
        "--set train.steps=20 --set data.workers=2 --run-dir run",
        tmp_path,
    )
    resumed = f"{EBMKIT} train {RECIPES / 'cifar10_resnet.toml'} --run-dir run --resume --set train.steps=30"
    assert "going on from step 20 to 30" in shell(resumed, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert rows[-1]["images"] == 240
    assert rows[-1]["skipped_images"] == 0
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    shell(f"{EBMKIT} sample run/model.safetensors --count 3 --out images.npz", tmp_path)
    assert np.load(tmp_path / "images.npz")["images"].shape == (3, 32, 32, 3)


@pytest.mark.skipif(not (REAL_DATA / "flowers64").is_dir(), reason="needs ../shared/data/flowers64")
def test_the_church_recipe_on_flowers(tmp_path: Path) -> None:
    shards = REAL_DATA / "flowers64" / "train-{000000..000001}.tar"
    small = "--set energy.channels=8 --set train.batch_size=4 --set buffer.size=16 --set data.workers=0"
    shell(
        f"{EBMKIT} train {RECIPES / 'lsun_church64.toml'} --set data.shards={shards} {small} --set train.steps=2 "
        "--run-dir run && "
        f"{EBMKIT} train {RECIPES / 'lsun_church64.toml'} --run-dir run --resume --set train.steps=3 && "
        f"{EBMKIT} sample run/model.safetensors --count 2 --out grid.png",
        tmp_path,
    )
    # Two images of 64 pixels in a row, with a border of two.
    assert Image.open(tmp_path / "grid.png").size == (2 * 66 + 2, 66 + 2)
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3
