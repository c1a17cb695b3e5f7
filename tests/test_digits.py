"""The recipe that the README begins with, whole: minutes long, run with `pytest -m slow -s`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import ebmkit
from run_helpers import RECIPES, environment, metrics_of, run_process

LIMIT_SECONDS = 180
LIMIT_DISTANCE = 1.5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_digits_train_in_three_minutes_to_digits_that_a_person_can_read(tmp_path: Path) -> None:
    env = environment(EBMKIT_CACHE=str(tmp_path / "cache"))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        env.pop(name)
    begin = time.perf_counter()
    command = [sys.executable, "-m", "ebmkit", "train", str(RECIPES / "digits.toml")]
    trained = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    assert trained.returncode == 0, trained.stderr
    run = tmp_path / "runs" / "digits"
    measured = run_process("evaluate", run / "model.safetensors", "--count", 512, "--json", cwd=tmp_path, env=env)
    assert measured.code == 0, measured.err
    result = json.loads(measured.out)
    distance = result["pixel_frechet_distance"]
    # This number is what the test is for.
    print(f"\ndigits: {seconds:.0f} s, pixel Fréchet distance {distance:.3f} (512 samples, seed 0)")  # noqa: T201
    assert (result["samples"], result["images"]) == (512, 1797)
    assert distance <= LIMIT_DISTANCE
    assert seconds <= LIMIT_SECONDS
    last = metrics_of(run)[-1]
    steps = ebmkit.check("digits").train.steps
    assert last["step"] == steps
    grid = Image.open(run / "samples" / f"step-{steps:09d}.png")
    assert grid.size == (8 * 50 + 2, 8 * 50 + 2)
    assert len(grid.convert("L").getcolors() or []) > 20
