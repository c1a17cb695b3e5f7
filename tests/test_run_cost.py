"""What metrics.jsonl says of a run's cost."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ebmkit.console import Silent
from ebmkit.device import peak_memory
from ebmkit.run_folder import RunFolder
from ebmkit.trainer import Trainer
from run_helpers import new_trainer, tiny_recipe, write_shards


def test_the_time_of_a_resumed_run_goes_on(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    new_trainer(tmp_path / "run", tiny_recipe(shards, train__steps=2)).train()
    run = RunFolder(tmp_path / "run")
    first = list(run.read_metrics())
    assert 0 < first[0]["seconds"] <= first[1]["seconds"]
    # As if those two steps had taken long.
    run.metrics.write_text("".join(json.dumps(row | {"seconds": 5000.0 + row["step"]}) + "\n" for row in first))
    Trainer(tiny_recipe(shards, train__steps=4), run, "cpu", Silent()).train()
    seconds = [row["seconds"] for row in run.read_metrics()]
    assert seconds[:2] == [5001.0, 5002.0]
    assert 5002.0 < seconds[2] <= seconds[3] < 5300


def test_peak_memory_is_that_of_the_process_and_never_falls(tmp_path: Path) -> None:
    before = peak_memory("cpu")
    # torch alone takes tenths of a GiB.
    assert 0.05 < before < 64
    size = int((before + 0.25) * 2**30)
    taken = torch.ones(size, dtype=torch.uint8)
    grown = peak_memory("cpu")
    del taken
    assert grown >= before + 0.2
    assert peak_memory("cpu") >= grown
    shards = write_shards(tmp_path / "shards")
    new_trainer(tmp_path / "run", tiny_recipe(shards, train__steps=2)).train()
    assert RunFolder(tmp_path / "run").last_metrics()["peak_memory_gib"] >= round(grown, 3)


def test_the_last_complete_line_counts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.last_metrics() == {}
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3')
    assert run.last_metrics() == {"step": 2}
