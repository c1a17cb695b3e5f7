"""The watchdog in jobs of two processes: all ranks skip and go back together, whichever of them is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ebmkit.run_folder import RunFolder
from ebmkit.state_file import load_state
from ebmkit.watchdog.journal import ROLLBACK, SKIP, read_journal
from run_helpers import environment, metrics_of, run_process, tiny_table, write_recipe, write_shards

SPOILS = '''
import ebmkit
import torch
PLUGIN_API = 1

class Spoils(ebmkit.Regularizer):
    """NaN on rank 1, at its fourth call and at three in a row later."""

    name = "spoils"
    calls = 0

    def penalty(self, pairs, generator):
        self.calls += 1
        bad = self.context.rank == 1 and self.calls in (4, 8, 9, 10)
        return ebmkit.Term(pairs.energies[0].mean() * (torch.nan if bad else 0.0), {})

@ebmkit.hookimpl
def ebmkit_regularizers():
    return [Spoils]
'''


def job(folder: Path, stage: int) -> dict[str, Any]:
    """What the last checkpoint holds of a run of two processes that goes back once."""
    (folder / "spoils-1.0.dist-info").mkdir(parents=True)
    (folder / "spoils.py").write_text(SPOILS)
    (folder / "spoils-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: spoils\nVersion: 1.0\n")
    (folder / "spoils-1.0.dist-info" / "entry_points.txt").write_text("[ebmkit]\nspoils = spoils\n")
    table = tiny_table(
        write_shards(folder / "shards"),
        engine={"zero_stage": stage},
        optimizer={"learning_rate": 1e-3, "eps": 1e-6},
        regularizers=[{"use": "wgan_lp"}, {"use": "spoils"}],
        train__steps=16,
        train__checkpoint_every=6,
        watchdog={"max_skips": 3},
    )
    recipe = write_recipe(folder / "recipe.toml", table)
    words = ["train", recipe, "--run-dir", "run", "--processes", 2]
    done = run_process(*words, cwd=folder, env=environment(PYTHONPATH=str(folder)))
    assert done.code == 0, done.out + done.err
    run = RunFolder(folder / "run")
    events = read_journal(run.folder)
    assert sum(event["count"] for event in events if event["action"] == SKIP) == 4
    assert [(event["step"], event["to"]) for event in events if event["action"] == ROLLBACK] == [(10, 6)]
    rows = metrics_of(run.folder)
    assert [row["step"] for row in rows] == list(range(1, 17))
    # What is not finite is left out of the row of the skipped update.
    assert [row["step"] for row in rows if "loss" not in row] == [4]
    final = load_state(run.checkpoint(16) / "state.safetensors")
    (steps,) = {float(moments["step"]) for moments in final["engine"]["state"].values()}
    # Sixteen steps, one of them skipped: an update that was not made has left no trace in AdamW either.
    assert steps == 15
    return final


def test_two_processes_skip_and_go_back_together(tmp_path: Path) -> None:
    final = job(tmp_path / "job", stage=0)
    assert all(value.isfinite().all() for value in final["model"].values())


@pytest.mark.slow
def test_zero_goes_back_to_the_same_weights(tmp_path: Path) -> None:
    """DeepSpeed has weights of its own there, which a rollback has to replace as well."""
    plain, sharded = (job(tmp_path / str(stage), stage)["model"] for stage in (0, 1))
    apart = sum(float((plain[name].double() - sharded[name].double()).square().sum()) for name in plain)
    whole = sum(float(value.double().square().sum()) for value in plain.values())
    assert (apart / whole) ** 0.5 < 1e-5
