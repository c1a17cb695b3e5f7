"""Jobs of two processes, started and ended in every way that a single machine has."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ebmkit
from ebmkit.distributed.launch import free_port
from ebmkit.run_folder import RunFolder
from run_helpers import (
    Result,
    environment,
    metrics_of,
    run_process,
    tiny_table,
    wait_until,
    write_recipe,
    write_shards,
)

LIMIT = 60.0
"""Seconds in which a failure of one process has to end the job."""
FAULTY = '''
import ebmkit
PLUGIN_API = 1

class Boom(ebmkit.Regularizer):
    """Raises an error on rank 1 at the third step."""

    name = "boom"
    calls = 0

    def penalty(self, pairs, generator):
        self.calls += 1
        if self.context.rank == 1 and self.calls == 3:
            raise ZeroDivisionError("no such thing")
        return None

@ebmkit.hookimpl
def ebmkit_regularizers():
    return [Boom]
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("jobs")
    write_shards(made / "shards")
    pattern = str(made / "shards" / "train-{000000..000001}.tar")
    write_recipe(made / "recipe.toml", tiny_table(pattern, train__sample_every=3, trackers=[{"use": "csv"}]))
    write_recipe(made / "long.toml", tiny_table(pattern, train__steps=100_000, train__checkpoint_every=5))
    return made


class Job:
    """`ebmkit train long.toml --processes 2`, which its test ends."""

    def __init__(self, folder: Path, name: str, recipe: str = "long.toml", **env: str) -> None:
        self.run = RunFolder(folder / name)
        words = [sys.executable, "-m", "ebmkit", "train", recipe, "--run-dir", name, "--processes", "2"]
        self.process = subprocess.Popen(
            words, cwd=folder, env=environment(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def until_saved(self) -> None:
        wait_until(lambda: bool(self.run.complete_checkpoints()) or self.process.poll() is not None, 120)
        assert self.process.poll() is None, self.process.communicate()

    def pid(self, rank: int) -> int:
        text = (self.run.logs / f"rank-{rank:04d}.log").read_text()
        return int(re.findall(r"process (\d+)", text)[0])

    def end(self) -> Result:
        begun = time.monotonic()
        try:
            out, err = self.process.communicate(timeout=LIMIT)
        finally:
            self.process.kill()
        assert time.monotonic() - begun < LIMIT
        return Result(self.process.returncode, out, err)


def goes_on(folder: Path, run: RunFolder, *more: str) -> None:
    """The run can be resumed: three steps more, in one process."""
    last = run.complete_checkpoints()[-1][0]
    words = ["train", "long.toml", "--run-dir", run.folder, "--resume", "--set", f"train.steps={last + 3}", *more]
    done = run_process(*words, cwd=folder)
    assert done.code == 0, done.out + done.err
    assert f"going on from step {last}" in done.out


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="module")
def trained(folder: Path) -> Result:
    return run_process("train", "recipe.toml", "--run-dir", "whole", "--processes", 2, cwd=folder)


def test_a_job_trains_a_run(folder: Path, trained: Result) -> None:
    assert trained.code == 0, trained.out + trained.err
    assert not trained.err
    assert trained.out.count("trained to step 6") == 1, "only rank 0 speaks"
    rows = metrics_of(folder / "whole")
    assert [(row["step"], row["images"]) for row in rows] == [(step, 8 * step) for step in range(1, 7)]
    assert {"loss", "energy_data", "gradient_norm", "learning_rate", "skipped_images"} <= rows[0].keys()
    run = RunFolder(folder / "whole")
    assert len(list(run.samples.iterdir())) == 2
    csv = (run.folder / "metrics.csv").read_text().splitlines()
    assert len(csv) == 7, "trackers are called on rank 0 alone"


def test_each_rank_has_a_log(folder: Path, trained: Result) -> None:
    logs = sorted(RunFolder(folder / "whole").logs.iterdir())
    assert [path.name for path in logs] == ["rank-0000.log", "rank-0001.log"]
    for rank, path in enumerate(logs):
        assert re.search(rf"rank {rank} of 2, process \d+ on ", path.read_text())


@pytest.mark.slow
def test_its_model_needs_no_deepspeed(folder: Path, trained: Result) -> None:
    """From the model file, and from an older checkpoint by `ebmkit export`."""
    hidden = "import sys; sys.modules['deepspeed'] = None; from ebmkit.cli import main; main()"
    for words in (
        ["export", "whole", "--step", 4, "--out", "older.safetensors"],
        ["export", "whole", "--out", "newest.safetensors"],
        ["sample", "older.safetensors", "--count", 4, "--out", "older.npz"],
    ):
        done = run_process("-c", hidden, *words, cwd=folder, module=False)
        assert done.code == 0, done.out + done.err
    older, newest, own = (
        ebmkit.load(folder / name) for name in ("older.safetensors", "newest.safetensors", "whole/model.safetensors")
    )
    assert (older.metadata["steps"], newest.metadata["steps"]) == ("4", "6")
    assert newest.metadata == own.metadata
    for name, value in own.energy.state_dict().items():
        assert value.equal(newest.energy.state_dict()[name])
    again = run_process("export", "whole", "--out", "older.safetensors", cwd=folder)
    assert (again.code, again.out) == (2, "")
    assert "older.safetensors: already exists" in again.err


def test_an_error_of_one_rank_ends_all_and_is_shown(folder: Path) -> None:
    plugin = folder / "plugin"
    (plugin / "boom-1.0.dist-info").mkdir(parents=True)
    (plugin / "boom.py").write_text(FAULTY)
    (plugin / "boom-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: boom\nVersion: 1.0\n")
    (plugin / "boom-1.0.dist-info" / "entry_points.txt").write_text("[ebmkit]\nboom = boom\n")
    table = tiny_table(str(folder / "shards" / "train-{000000..000001}.tar"), regularizers=[{"use": "boom"}])
    write_recipe(folder / "faulty.toml", table)
    job = Job(folder, "faulty", "faulty.toml", PYTHONPATH=str(plugin))
    job.process.wait(120)
    ended = job.end()
    assert ended.code == 1
    first = ended.err.splitlines()[0]
    assert first.startswith("error: rank 1 on "), ended.err
    assert ended.err.count("ZeroDivisionError: no such thing") == 1
    assert "no such thing" in (job.run.logs / "rank-0001.log").read_text()
    # The checkpoint of step 2 was complete before.
    assert [step for step, _ in job.run.complete_checkpoints()] == [2]


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_rank_ends_all_and_the_run_goes_on(folder: Path, rank: int) -> None:
    job = Job(folder, f"killed-{rank}")
    job.until_saved()
    pids = [job.pid(0), job.pid(1)]
    os.kill(pids[rank], signal.SIGKILL)
    ended = job.end()
    assert ended.code not in (0, 2)
    assert ended.err.startswith(f"error: rank {rank} was killed by SIGKILL"), ended.err
    assert "Traceback" not in ended.err
    assert all(gone(pid) for pid in pids)
    goes_on(folder, job.run)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGUSR1])
def test_a_preempted_job_ends_with_a_checkpoint(number: signal.Signals, folder: Path) -> None:
    """The launcher passes the signal on."""
    job = Job(folder, f"stopped-{number.name}")
    job.until_saved()
    job.process.send_signal(number)
    ended = job.end()
    assert ended.code == 75, ended.err
    assert "--resume --processes 2" in ended.out
    step = int(re.findall(r"stopped at step (\d+)", ended.out)[0])
    assert job.run.complete_checkpoints()[-1][0] == step
    assert number.name in (job.run.logs / "rank-0001.log").read_text()


@pytest.mark.slow
def test_a_full_disk_ends_all_ranks_with_the_checkpoint_before(folder: Path, tmp_path: Path) -> None:
    with small_disk_or_skip(tmp_path / "disk") as disk:
        job = Job(folder, str(disk / "run"))
        job.until_saved()
        (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        ended = job.end()
        assert ended.code == 74, ended.err
        assert "No space left on device" in ended.err
        assert "Traceback" not in ended.err
        assert job.run.complete_checkpoints()
        assert not list(job.run.checkpoints.glob(".*"))
        (disk / "ballast").unlink()
        goes_on(folder, job.run)


@contextlib.contextmanager
def small_disk_or_skip(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_job_that_is_preempted_before_it_began_leaves_nothing(folder: Path) -> None:
    job = Job(folder, "preempted-early")
    children = Path(f"/proc/{job.process.pid}/task/{job.process.pid}/children")
    wait_until(lambda: len(children.read_text().split()) == 2)
    job.process.send_signal(signal.SIGUSR1)
    ended = job.end()
    assert ended.code == 75, ended.err
    assert "Traceback" not in ended.err
    assert not job.run.folder.exists()


@pytest.mark.slow
def test_a_killed_launcher_leaves_no_process(folder: Path) -> None:
    job = Job(folder, "orphaned")
    job.until_saved()
    pids = [job.pid(0), job.pid(1)]
    job.process.kill()
    wait_until(lambda: all(gone(pid) for pid in pids), LIMIT)
    goes_on(folder, job.run)


@pytest.mark.slow
def test_a_launcher_that_is_killed_at_once_leaves_no_process(folder: Path) -> None:
    job = Job(folder, "orphaned-early")
    children = Path(f"/proc/{job.process.pid}/task/{job.process.pid}/children")
    wait_until(lambda: len(children.read_text().split()) == 2)
    pids = [int(pid) for pid in children.read_text().split()]
    job.process.kill()
    wait_until(lambda: all(gone(pid) for pid in pids), LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_frozen_rank_ends_the_other(folder: Path, rank: int) -> None:
    """Under a launcher that does not look after them: the one that is left ends by itself."""
    name, shared = f"frozen-{rank}", {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    words = [sys.executable, "-m", "ebmkit", "train", "long.toml", "--run-dir", name]
    tasks = [
        subprocess.Popen(
            words,
            cwd=folder,
            env=environment(**shared, RANK=str(number), LOCAL_RANK=str(number)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    run = RunFolder(folder / name)
    try:
        wait_until(lambda: bool(run.complete_checkpoints()) or any(task.poll() is not None for task in tasks), 120)
        tasks[rank].send_signal(signal.SIGSTOP)
        said = tasks[1 - rank].communicate(timeout=LIMIT)[0]
    finally:
        for task in tasks:
            task.kill()
            task.wait()
    assert tasks[1 - rank].returncode == 1, said
    log = (run.logs / f"rank-{1 - rank:04d}.log").read_text()
    assert ("cannot be reached any more" if rank == 0 else "no sign of life") in log, log
    assert rank == 0 or "rank 1 on" in said


def test_a_bad_recipe_is_told_once(folder: Path) -> None:
    words = ["train", "recipe.toml", "--run-dir", "never", "--set", "train.batch_size=7", "--processes", 2]
    done = run_process(*words, cwd=folder)
    assert done.code == 2
    assert done.err.count("must be divisible by the 2 processes, not 7") == 1
    assert done.err.startswith("error: recipe.toml: 1 problem"), done.err
    assert "Traceback" not in done.err
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gpus", 2, "--processes", 2], "give one of them"),
        (["--gpus", 0], "greater than or equal to 1"),
        (["--gpus", 2], "train.device = 'cpu'"),
        (["--gpus", 1], "train.device = 'cpu'"),
    ],
)
def test_misuse(folder: Path, words: list[object], told: str) -> None:
    done = run_process("train", "recipe.toml", *words, cwd=folder)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err


def test_gpus_that_are_not_there(folder: Path) -> None:
    import torch

    count = torch.cuda.device_count() + 1
    words = ["train", "recipe.toml", "--run-dir", "nogpu", "--set", "train.device=auto", "--gpus", max(2, count)]
    done = run_process(*words, cwd=folder)
    assert done.code == 2
    assert f"which has {count - 1} GPUs" in done.err
    assert "Traceback" not in done.err
    assert not (folder / "nogpu").exists(), "nothing was trained, so that the next try may have the folder"


@pytest.mark.slow
def test_samples_do_not_depend_on_the_number_of_processes(folder: Path, trained: Result) -> None:
    import numpy as np

    drawn = []
    for count in (1, 2, 3):
        words = ["sample", "whole/model.safetensors", "--count", 13, "--batch-size", 4, "--out", f"{count}.safetensors"]
        done = run_process(*words, *(["--processes", count] if count > 1 else []), cwd=folder)
        assert done.code == 0, done.out + done.err
        assert done.out == f"13 images: {count}.safetensors\n"
        from safetensors.numpy import load_file

        drawn.append(load_file(folder / f"{count}.safetensors")["images"])
    for other in drawn[1:]:
        np.testing.assert_array_equal(drawn[0], other)


@pytest.mark.slow
def test_evaluation_does_not_depend_on_it_either(folder: Path, trained: Result) -> None:
    words = ["evaluate", "whole/model.safetensors", "--count", 20, "--batch-size", 4, "--json"]
    alone, together = run_process(*words, cwd=folder), run_process(*words, "--processes", 2, cwd=folder)
    assert alone.code == together.code == 0, together.err
    assert alone.out == together.out


LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "{port}", "-m", "ebmkit"],
    "deepspeed": [
        "-m",
        "deepspeed.launcher.launch",
        "--world_info={world}",
        "--master_port={port}",
        "--module",
        "ebmkit",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_other_launchers(folder: Path, launcher: str) -> None:
    """What `torchrun` and `deepspeed` run on each machine; `deepspeed` itself looks for GPUs first."""
    world = "eyJsb2NhbGhvc3QiOiBbMCwgMV19"  # {"localhost": [0, 1]}
    words = [word.format(port=free_port(), world=world) for word in LAUNCHERS[launcher]]
    run = f"by-{launcher}"
    done = run_process(
        *words,
        "train",
        "recipe.toml",
        "--run-dir",
        run,
        cwd=folder,
        module=False,
        env=environment(DS_ACCELERATOR="cpu"),
    )
    assert done.code == 0, done.out + done.err
    assert done.out.count("trained to step 6") == 1
    assert len(list(RunFolder(folder / run).logs.iterdir())) == 2


def test_srun(folder: Path) -> None:
    """The environment that srun gives its tasks."""
    shared = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "127.0.0.1", "MASTER_PORT": str(free_port())}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "ebmkit", "train", "recipe.toml", "--run-dir", "by-srun"],
            cwd=folder,
            env=environment(**shared, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert "trained to step 6" in said[0]
    assert "trained" not in said[1]
