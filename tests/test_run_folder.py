"""The run folder: never overwritten, and whole at every moment."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from ebmkit import BadInput
from ebmkit.files import write_atomically, write_text
from ebmkit.run_folder import RunFolder, default_run_folder
from run_helpers import contents


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "mine")
    run.create("seed = 1\n")
    return run


def checkpoint(run: RunFolder, step: int, keep: int = 100) -> Path:
    temporary = run.begin_checkpoint(step)
    (temporary / "state").write_text(str(step))
    return run.finish_checkpoint(step, keep)


def test_a_new_folder(run: RunFolder) -> None:
    assert run.recipe.read_text() == "seed = 1\n"
    assert run.samples.is_dir()
    assert run.checkpoints.is_dir()
    assert run.complete_checkpoints() == []
    run.require()


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    RunFolder(tmp_path).create("")
    assert (tmp_path / "recipe.toml").is_file()


@pytest.mark.parametrize("name", ["recipe.toml", ".hidden", "sub"])
def test_anything_that_is_there_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir() if name == "sub" else (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(BadInput, match=r"never overwritten.*--resume.*--run-dir"):
        RunFolder(tmp_path).create("theirs")
    assert contents(tmp_path) == before


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="already exists"):
        RunFolder(tmp_path / "file").create("")
    with pytest.raises(BadInput, match="cannot be written"):
        RunFolder(tmp_path / "file" / "below").create("")
    assert (tmp_path / "file").read_text() == "mine"


def test_require_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run here"):
        RunFolder(tmp_path).require()


def test_only_complete_checkpoints_count(run: RunFolder) -> None:
    for step in (10, 9, 123_456_789):
        checkpoint(run, step)
    run.begin_checkpoint(11)
    (run.checkpoints / "step-12").mkdir()
    (run.checkpoints / "step-000000013").write_text("a file")
    (run.checkpoints / "step-000000014.bak").mkdir()
    assert [step for step, _ in run.complete_checkpoints()] == [9, 10, 123_456_789]


def test_pruning_keeps_the_newest(run: RunFolder) -> None:
    for step in (1, 2, 3, 4):
        checkpoint(run, step, keep=2)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000000003", "step-000000004"]


def test_the_same_step_again_keeps_the_first(run: RunFolder) -> None:
    first = checkpoint(run, 5)
    (first / "mark").write_text("first")
    assert checkpoint(run, 5) == first
    assert (first / "mark").read_text() == "first"
    assert [path.name for path in run.checkpoints.iterdir()] == [first.name]


def test_what_was_left_unfinished_is_begun_anew(run: RunFolder) -> None:
    (run.begin_checkpoint(5) / "half").write_text("")
    assert list(run.begin_checkpoint(5).iterdir()) == []


def test_clean_removes_only_what_is_unfinished(run: RunFolder) -> None:
    checkpoint(run, 1)
    run.begin_checkpoint(2)
    (run.samples / ".step-1-0123abcd.png").write_text("half")
    (run.samples / "step-1.png").write_text("whole")
    (run.folder / ".model-89abcdef.safetensors").write_text("half")
    (run.folder / "notes.txt").write_text("mine")
    run.clean()
    assert sorted(contents(run.folder)) == [
        "checkpoints/step-000000001/state",
        "notes.txt",
        "recipe.toml",
        "samples/step-1.png",
    ]
    assert not list(run.checkpoints.glob(".*"))


def test_earlier_recipes_are_kept(run: RunFolder) -> None:
    run.keep_recipe("seed = 1\n")
    assert not (run.folder / "recipe-1.toml").exists()
    for seed in (2, 3):
        run.keep_recipe(f"seed = {seed}\n")
    texts = [(run.folder / name).read_text() for name in ("recipe-1.toml", "recipe-2.toml", "recipe.toml")]
    assert texts == ["seed = 1\n", "seed = 2\n", "seed = 3\n"]


def test_metrics_are_rewound_to_a_step(run: RunFolder) -> None:
    lines = [json.dumps({"step": step, "loss": 0.5}) + "\n" for step in (1, 2, 3, 4)]
    run.metrics.write_text("".join(lines) + '{"step": 5, "lo')
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3, 4], "a line that was cut off is no line"
    run.rewind_metrics(3)
    assert run.metrics.read_text() == "".join(lines[:3])
    run.rewind_metrics(0)
    assert run.metrics.read_text() == ""


def test_lines_of_metrics_that_are_none_are_passed_over(run: RunFolder) -> None:
    """What a power cut, or two lines that ran into each other, may leave."""
    run.append_metrics({"step": 1})
    with run.metrics.open("ab") as file:
        file.write(b'\0\0\xff\n{"step": 2, "lo{"step": 3}\n[4]\n{"loss": 1}\n')
    run.append_metrics({"step": 5})
    run.append_metrics({"step": 6})
    assert [row["step"] for row in run.read_metrics()] == [1, 5, 6]
    run.rewind_metrics(5)
    assert [row["step"] for row in run.read_metrics()] == [1, 5]
    run.append_metrics({"step": 6})
    assert [row["step"] for row in run.read_metrics()] == [1, 5, 6]


def test_no_metrics_yet(run: RunFolder) -> None:
    run.rewind_metrics(3)
    assert list(run.read_metrics()) == []
    assert not run.metrics.exists()


def test_the_lock_keeps_other_processes_out_and_goes_with_its_process(run: RunFolder) -> None:
    def child() -> int:
        """What another process meets: 0 it got in, 2 it was refused."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with run.locked():
                    code = 0
            except BadInput as error:
                code = 2 if "another process" in str(error) else 3
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    with run.locked():
        assert child() == 2
    assert child() == 0
    with run.locked():
        assert child() == 2


def test_an_error_before_anything_was_trained_leaves_no_folder(run: RunFolder) -> None:
    with pytest.raises(BadInput, match="bad shards"), run.locked(), run.discarded_if_empty():
        raise BadInput("bad shards")
    assert not run.folder.exists()


@pytest.mark.parametrize("what", ["metrics", "checkpoint", "model"])
def test_an_error_after_something_was_trained_keeps_all(what: str, run: RunFolder) -> None:
    if what == "checkpoint":
        checkpoint(run, 1)
    else:
        (run.metrics if what == "metrics" else run.model).write_text("")
    before = contents(run.folder)
    with pytest.raises(KeyboardInterrupt), run.discarded_if_empty():
        raise KeyboardInterrupt
    assert contents(run.folder) == before


def test_someone_elses_file_is_never_discarded(run: RunFolder) -> None:
    (run.folder / "notes.txt").write_text("mine")
    with pytest.raises(BadInput), run.discarded_if_empty():
        raise BadInput("bad shards")
    # It stays a run, so that --resume can begin it; a folder that can be neither resumed nor used would be a trap.
    assert contents(run.folder) == {"notes.txt": b"mine", "recipe.toml": b"seed = 1\n"}
    run.require()


def test_writing_atomically(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fails)
    assert contents(tmp_path) == {"a.txt": b"old"}
    write_text(path, "new ä")
    assert contents(tmp_path) == {"a.txt": "new ä".encode()}


def test_files_have_the_permissions_that_the_umask_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_the_default_folder_has_the_recipes_name() -> None:
    assert default_run_folder("digits") == Path("runs/digits")


def test_cleaning_takes_what_ebmkit_left_and_nothing_else(run: RunFolder) -> None:
    for name in (".notes", ".git/HEAD", "samples/.x", ".report-1.json", ".env-deadbeef-old"):
        (run.folder / name).parent.mkdir(exist_ok=True)
        (run.folder / name).write_text("mine")
    kept = contents(run.folder)
    run.begin_checkpoint(7)
    (run.checkpoints / ".old-step-000000003").mkdir()
    for folder, name in ((run.folder, "model.safetensors"), (run.samples, "step-000000002.png")):
        # Killed before its rename: the temporary name stays.
        stem, _, suffix = name.rpartition(".")
        (folder / f".{stem}-0123abcd.{suffix}").write_text("half")
    run.clean()
    assert contents(run.folder) == kept
    assert list(run.checkpoints.iterdir()) == []
