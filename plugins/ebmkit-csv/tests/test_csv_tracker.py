"""The tables of real runs: whole ones, killed ones, resumed ones, evaluated ones."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from ebmkit_csv.table import Table
from ebmkit_csv.tracker import Csv

from ebmkit.errors import BadInput
from ebmkit.lifecycle import ERROR_LOG
from ebmkit.run_folder import RunFolder
from ebmkit.testing import TrackerContract
from run_helpers import (
    Command,
    environment,
    new_trainer,
    run_cli,
    tiny_recipe,
    tiny_table,
    wait_until,
    write_recipe,
    write_shards,
)

CSV = [{"use": "csv"}]
STEPS, EVERY = 60, 30

Row = dict[str, str]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


def read(path: Path) -> tuple[list[str], list[Row]]:
    """Header and rows, where every row has a cell for each column and the last line its end."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    columns, *rows = csv.reader(text.splitlines())
    assert len(set(columns)) == len(columns)
    return columns, [dict(zip(columns, row, strict=True)) for row in rows]


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_table_is_the_log(run: Path) -> None:
    """metrics.csv holds what metrics.jsonl holds, digit for digit, columns in the order of their first appearance."""
    columns, rows = read(run / "metrics.csv")
    lines = lines_of(run)
    assert columns == list(dict.fromkeys(name for line in lines for name in line))
    assert rows == [{name: repr(line[name]) if name in line else "" for name in columns} for line in lines]


def without_times(rows: Iterable[Row]) -> list[Row]:
    measured = ("images_per_second", "seconds", "peak_memory_gib")
    return [{name: cell for name, cell in row.items() if name not in measured} for row in rows]


def test_the_table_is_the_log_value_for_value(tmp_path: Path, shards: str) -> None:
    run = tmp_path / "run"
    new_trainer(run, tiny_recipe(shards, train__steps=5, train__log_every=2, trackers=CSV)).train()
    columns, rows = read(run / "metrics.csv")
    assert [row["step"] for row in rows] == ["2", "4", "5"]
    assert columns[0] == "step"
    assert {"loss", "wgan_lp/penalty", "images_per_second"} <= set(columns)
    assert_table_is_the_log(run)
    assert not (run / "evaluations.csv").exists()
    assert not (run / ERROR_LOG).exists()


def test_kill_minus_9_and_resume_is_the_table_of_an_undisturbed_run(tmp_path: Path, shards: str) -> None:
    table = tiny_table(shards, trackers=CSV, train__steps=STEPS, train__checkpoint_every=EVERY, sampler__steps=1)
    words = ["train", write_recipe(tmp_path / "tiny.toml", table), "--run-dir"]
    whole, run = tmp_path / "whole", tmp_path / "killed"
    assert Command(*words, whole, cwd=tmp_path).wait().code == 0

    command = Command(*words, run, cwd=tmp_path)
    log = run / "metrics.csv"
    wait_until(lambda: log.is_file() and log.read_bytes().count(b"\n") > EVERY + 3)
    command.kill()
    command.wait()
    ((saved, _),) = RunFolder(run).complete_checkpoints()
    assert saved == EVERY
    assert log.read_bytes().count(b"\n") > EVERY + 3, "nothing is there to be dropped"
    # A kill in the middle of a line: its step alone would look like one to keep.
    with log.open("a") as file:
        file.write("7")

    done = Command(*words, run, "--resume", cwd=tmp_path).wait()
    assert done.code == 0, done.err
    assert f"going on from step {EVERY}" in done.out
    assert_table_is_the_log(run)
    (columns, rows), (columns_of_whole, rows_of_whole) = read(log), read(whole / "metrics.csv")
    assert columns == columns_of_whole
    assert without_times(rows) == without_times(rows_of_whole)
    assert [row["step"] for row in rows] == [str(step) for step in range(1, STEPS + 1)]
    assert not list(run.glob(".*.csv")), "temporary files are left"


def test_a_kill_before_the_first_checkpoint_starts_the_table_again(tmp_path: Path, shards: str) -> None:
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path / "tiny.toml", tiny_table(shards, trackers=CSV, train__steps=3))
    assert run_cli("train", recipe, "--run-dir", run).code == 0
    header = (run / "metrics.csv").read_text().splitlines()[0]
    shutil.rmtree(run / "checkpoints")
    assert run_cli("train", recipe, "--run-dir", run, "--resume").code == 0
    assert_table_is_the_log(run)
    assert (run / "metrics.csv").read_text().splitlines()[0] == header
    assert len(read(run / "metrics.csv")[1]) == 3


def test_numbers_that_come_up_later_widen_the_table(tmp_path: Path, shards: str) -> None:
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path / "tiny.toml", tiny_table(shards, trackers=CSV, train__steps=3, regularizers=[]))
    assert run_cli("train", recipe, "--run-dir", run).code == 0
    before, earlier = read(run / "metrics.csv")
    more = ["--set", "train.steps=5", "--set", 'regularizers=[{use = "energy_l2"}]']
    assert run_cli("train", recipe, "--run-dir", run, "--resume", *more).code == 0
    columns, rows = read(run / "metrics.csv")
    assert columns == [*before, "energy_l2/penalty"]
    assert rows[:3] == [row | {"energy_l2/penalty": ""} for row in earlier]
    assert all(float(row["energy_l2/penalty"]) >= 0 for row in rows[3:])
    assert_table_is_the_log(run)
    # And back: the column stays.
    back = ["--set", "train.steps=6", "--set", "regularizers=[]"]
    assert run_cli("train", recipe, "--run-dir", run, "--resume", *back).code == 0
    assert read(run / "metrics.csv")[0] == columns
    assert read(run / "metrics.csv")[1][5]["energy_l2/penalty"] == ""
    assert_table_is_the_log(run)


def test_a_run_is_the_same_with_and_without_the_tracker(tmp_path: Path, shards: str) -> None:
    from run_helpers import differences, last_checkpoint

    for name, trackers in (("with", CSV), ("without", [])):
        new_trainer(tmp_path / name, tiny_recipe(shards, train__steps=3, trackers=trackers)).train()
    assert not list(differences(last_checkpoint(tmp_path / "with"), last_checkpoint(tmp_path / "without")))
    assert not (tmp_path / "without" / "metrics.csv").exists()


def test_a_checkpoint_makes_the_rows_survive_a_power_cut(
    tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every checkpoint, all the rows up to it."""
    synced, fsync = [], os.fsync

    def spy(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.name == "metrics.csv":
            synced.append(len(read(path)[1]))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    new_trainer(tmp_path / "run", tiny_recipe(shards, trackers=CSV, train__checkpoint_every=3)).train()
    assert synced == [3, 6]


def test_a_file_of_someone_else_is_not_overwritten(tmp_path: Path, shards: str) -> None:
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path / "tiny.toml", tiny_table(shards, trackers=CSV, train__steps=2))
    assert run_cli("train", recipe, "--run-dir", run).code == 0
    (run / "metrics.csv").write_text("name,price\nbread,3\n")
    done = run_cli("train", recipe, "--run-dir", run, "--resume", "--set", "train.steps=3")
    assert done.code == 0
    told = " ".join((done.out + done.err).split())
    assert "tracker 'csv'" in told
    assert "a row without a whole number as 'step'" in told
    assert "move the file elsewhere" in told
    assert (run / "metrics.csv").read_text() == "name,price\nbread,3\n"


# --- Evaluations -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shards: str) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_recipe(folder / "tiny.toml", tiny_table(shards, trackers=CSV, train__steps=2))
    assert run_cli("train", recipe, "--run-dir", folder / "run").code == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A trained run that a test may change."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def test_every_evaluation_is_a_row(run: Path) -> None:
    told = [
        json.loads(run_cli("evaluate", run / "model.safetensors", "--count", 4, "--seed", seed, "--json").out)
        for seed in (0, 1)
    ]
    columns, rows = read(run / "evaluations.csv")
    assert columns == ["step", *told[0]]
    assert rows == [{"step": "2", **{name: repr(value) for name, value in result.items()}} for result in told]
    assert rows[0]["pixel_frechet_distance"] != rows[1]["pixel_frechet_distance"]


def test_evaluations_of_steps_that_come_again_are_kept(run: Path, trained: Path) -> None:
    """Training repeats its steps, but nobody's evaluations."""
    assert run_cli("evaluate", run / "model.safetensors", "--count", 4).code == 0
    header, row = (run / "evaluations.csv").read_text().splitlines()
    # What an evaluation of step 3 leaves, where the run has lost its checkpoint.
    kept = f"{header}\n{row}\n3{row[1:]}\n"
    (run / "evaluations.csv").write_text(kept)
    more = ["--resume", "--set", "train.steps=4"]
    assert run_cli("train", trained / "tiny.toml", "--run-dir", run, *more).code == 0
    assert [row["step"] for row in read(run / "metrics.csv")[1]] == ["1", "2", "3", "4"]
    assert (run / "evaluations.csv").read_text() == kept
    assert run_cli("evaluate", run / "model.safetensors", "--count", 4).code == 0
    assert [row["step"] for row in read(run / "evaluations.csv")[1]] == ["2", "3", "4"]


def test_half_a_row_of_a_killed_evaluation_does_not_spoil_the_next_one(run: Path) -> None:
    evaluate = ["evaluate", run / "model.safetensors", "--count", 4]
    assert run_cli(*evaluate).code == 0
    whole = (run / "evaluations.csv").read_text()
    (run / "evaluations.csv").write_text(whole + "2,0.")
    assert run_cli(*evaluate).code == 0
    assert (run / "evaluations.csv").read_text() == whole + whole.splitlines()[1] + "\n"


MANY = """
import sys
from pathlib import Path
from ebmkit import Context, RunInfo
from ebmkit.testing import TrackerContract
from ebmkit_csv.tracker import Csv
me, folder = int(sys.argv[1]), Path(sys.argv[2])
tracker = Csv(Csv.Options(), Context((1, 8, 8), 1))
(folder / f"ready-{me}").touch()
while len(list(folder.glob("ready-*"))) < 3:
    pass
for i in range(40):
    tracker.ebmkit_evaluation(RunInfo(folder, {}), 1, {"who": me, f"column-{me}-{i % 5}": i})
"""


def test_evaluations_at_the_same_time_lose_no_row(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", MANY, str(me), str(tmp_path)] for me in range(3)]
    processes = [subprocess.Popen(command, env=environment()) for command in commands]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    columns, rows = read(tmp_path / "evaluations.csv")
    assert len(columns) == 2 + 3 * 5
    for me in range(3):
        mine = [row for row in rows if row["who"] == str(me)]
        assert [row[f"column-{me}-{i % 5}"] for i, row in enumerate(mine)] == [str(i) for i in range(40)]


# --- The file itself -------------------------------------------------------------------------------------------------


def test_a_row_costs_no_more_than_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (replaced.append(Path(b).name), replace(a, b)))
    table = Table(tmp_path / "t.csv")
    table.append({"step": 1, "a": 0.1})
    assert replaced == ["t.csv"]
    table.append({"a": 0.2, "step": 2})
    table.append({"step": 3})
    assert replaced == ["t.csv"]
    assert table.path.read_text() == "step,a\n1,0.1\n2,0.2\n3,\n"
    table.append({"step": 4, "b": 1})
    assert replaced == ["t.csv"] * 2
    assert table.path.read_text() == "step,a,b\n1,0.1,\n2,0.2,\n3,,\n4,,1\n"
    Table(table.path, up_to=2).append({"step": 3, "b": 5})
    assert table.path.read_text() == "step,a,b\n1,0.1,\n2,0.2,\n3,,5\n"


def test_a_table_that_was_deleted_begins_again_with_its_header(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv")
    table.append({"step": 1, "a": 0.1})
    table.path.unlink()
    table.append({"step": 2, "a": 0.2})
    assert table.path.read_text() == "step,a\n2,0.2\n"


def test_what_has_nothing_to_drop_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    Table(path, up_to=0)
    assert not path.exists()
    Table(path).append({"step": 1, "a": 0.1})
    inode = path.stat().st_ino
    Table(path, up_to=1)
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    "change", [lambda path: Table(path).append({"step": 3, "new": 1}), lambda path: Table(path, 1)]
)
def test_a_crash_while_it_is_written_anew_leaves_the_old_table(
    change: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    Table(path).append({"step": 1, "a": 0.1})
    Table(path).append({"step": 2, "a": 0.2})
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="no space"):
            change(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.csv"]
    change(path)
    assert path.read_bytes() != before


def test_text_stays_in_one_line_and_comes_back(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv")
    table.append({"step": 1, "text": 'a "word", é\r\nand more', "list": [1, None], "none": None, "yes": True})
    assert read(table.path)[1] == [
        {"step": "1", "text": 'a "word", é and more', "list": "[1, null]", "none": "", "yes": "True"}
    ]
    # A kill within a letter of two bytes.
    table.path.write_bytes(table.path.read_bytes() + "2,é".encode()[:-1])
    Table(table.path).append({"step": 2, "text": "b"})
    assert [row["text"] for row in read(table.path)[1]] == ['a "word", é and more', "b"]


@pytest.mark.parametrize("content", ["name\nbread\n", "step\nthree\n", "a,step\n1\n"])
def test_rows_without_a_step_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"t\.csv: a row without a whole number as 'step'"):
        Table(path)
    assert path.read_text() == content


class TestCsvContract(TrackerContract):
    component = Csv
