"""Two machines: network namespaces with addresses of their own and a cable between them, one process in each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebmkit.run_folder import RunFolder
from run_helpers import environment, metrics_of, tiny_table, wait_until, write_recipe, write_shards

LIMIT = 60.0
"""Seconds in which the machine that is left has to notice."""
ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = 29_511


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def _must(*words: str) -> None:
    done = ip(*words)
    if done.returncode:
        pytest.skip(f"network namespaces cannot be made here: ip {' '.join(words)}: {done.stderr.strip()}")


class Machines:
    """Both of them: what runs there, and the cable."""

    def __init__(self) -> None:
        self.names = tuple(f"ebmkit-{os.getpid()}-{rank}" for rank in range(2))
        self.links = tuple(f"ebm{os.getpid() % 100_000}{'ab'[rank]}" for rank in range(2))
        self.running: list[subprocess.Popen[str]] = []

    def make(self) -> None:
        for name in self.names:
            _must("netns", "add", name)
        _must("link", "add", self.links[0], "type", "veth", "peer", "name", self.links[1])
        for name, link, address in zip(self.names, self.links, ADDRESSES, strict=True):
            _must("link", "set", link, "netns", name)
            _must("-n", name, "addr", "add", f"{address}/24", "dev", link)
            _must("-n", name, "link", "set", "lo", "up")
            _must("-n", name, "link", "set", link, "up")

    def remove(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()
        for name in self.names:
            ip("netns", "delete", name)

    def cable(self, state: str) -> None:
        """Plug it in ("up") or out ("down"): then no farewell reaches the other machine, as after a power cut."""
        _must("-n", self.names[1], "link", "set", self.links[1], state)

    def start(self, folder: Path, *words: str) -> list[subprocess.Popen[str]]:
        """`ebmkit WORDS` on both, as torchrun's environment has it."""
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(PORT), "LOCAL_RANK": "0"}
        started = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, "-m", "ebmkit", *words],
                cwd=folder,
                env=environment(**shared, RANK=str(rank)),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank, name in enumerate(self.names)
        ]
        self.running += started
        return started


@pytest.fixture
def machines() -> Iterator[Machines]:
    if sys.platform != "linux" or shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("two machines need network namespaces: Linux, the command `ip`, and root")
    made = Machines()
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.mark.slow
def test_a_lost_machine_ends_the_job_and_it_goes_on_from_its_checkpoint(machines: Machines, tmp_path: Path) -> None:
    table = tiny_table(write_shards(tmp_path / "shards"), train__steps=100_000, train__checkpoint_every=5)
    table["engine"] = {"zero_stage": 2}
    write_recipe(tmp_path / "recipe.toml", table)
    run = RunFolder(tmp_path / "run")
    ranks = machines.start(tmp_path, "train", "recipe.toml", "--run-dir", "run")
    wait_until(lambda: bool(run.complete_checkpoints()) or any(rank.poll() is not None for rank in ranks), 120)
    assert [rank.poll() for rank in ranks] == [None, None], [rank.communicate() for rank in ranks]

    machines.cable("down")
    ranks[1].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    said = ranks[0].communicate(timeout=LIMIT)[0]
    assert time.monotonic() - begun < LIMIT
    assert ranks[0].returncode == 1
    assert "rank 1 on" in said
    assert "no sign of life" in said or "ended without a word" in said, said
    assert "Traceback" not in said

    machines.cable("up")
    last = run.complete_checkpoints()[-1][0]
    words = ["train", "recipe.toml", "--run-dir", "run", "--resume", "--set", f"train.steps={last + 4}"]
    again = machines.start(tmp_path, *words)
    said = "".join(rank.communicate(timeout=120)[0] for rank in again)
    assert [rank.returncode for rank in again] == [0, 0], said
    assert f"going on from step {last} to {last + 4}" in said
    assert [row["step"] for row in metrics_of(run.folder)] == list(range(1, last + 5))
    assert sorted(path.name for path in run.complete_checkpoints()[-1][1].iterdir())[:2] == [
        "rank-0000.safetensors",
        "rank-0001.safetensors",
    ]
