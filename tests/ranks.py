"""Starting the processes of a job for tests, as torchrun's environment has them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ebmkit.distributed.launch import free_port
from run_helpers import environment


def start(
    count: int, *words: object, cwd: Path, env: Mapping[str, str] | None = None, port: int | None = None
) -> list[subprocess.Popen[str]]:
    """`python WORDS` in `count` processes of one job."""
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port())}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=cwd,
            env=environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank), **(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]


def finish(ranks: list[subprocess.Popen[str]], seconds: float = 240.0) -> list[str]:
    """Wait for all of them; what each one said, where all ended well."""
    try:
        said = [rank.communicate(timeout=seconds)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, text in zip(ranks, said, strict=True):
        assert rank.returncode == 0, text
    return said
