"""The cost of a run in its metrics: it goes on over a resume, and memory is what the process really holds."""

from __future__ import annotations

import time
from pathlib import Path

import torch

import ebmkit
from ebmkit.metering import Meter, peak_memory
from ebmkit.run_folder import RunFolder
from run_helpers import tiny_table, write_recipe, write_shards


def test_time_goes_on_where_a_run_is_resumed(tmp_path: Path) -> None:
    write_recipe(tmp_path / "tiny.toml", tiny_table(write_shards(tmp_path / "shards")))
    for steps in (3, 6):
        began = time.perf_counter()
        ebmkit.train(tmp_path / "tiny.toml", {"train.steps": steps}, tmp_path / "run", resume=steps > 3)
        last = time.perf_counter() - began
    seconds = [row["seconds"] for row in RunFolder(tmp_path / "run").read_metrics()]
    assert len(seconds) == 6
    assert seconds == sorted(seconds)
    assert seconds[2] <= seconds[3] <= seconds[5] <= seconds[2] + last


def test_the_rate_is_that_of_this_process() -> None:
    meter = Meter("cpu", 1000, [{"step": 1, "seconds": 50.0}, {"step": 2}])
    time.sleep(0.2)
    found = meter.read(1100)
    assert 50.2 <= found["seconds"] < 60
    assert 10 < found["images_per_second"] <= 500


def test_peak_memory_sees_what_was_given_back() -> None:
    before = peak_memory("cpu")
    held = torch.ones(before // 4 + 50_000_000)  # more than what is there
    size = held.numel() * 4
    del held
    assert size <= peak_memory("cpu") < 4 * (before + size)
