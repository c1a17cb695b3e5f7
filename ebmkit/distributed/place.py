"""Which process of a job this is, as its launcher's environment tells. Without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ebmkit.errors import BadInput

DEFAULT_PORT = 29_500
LAUNCHER = "EBMKIT_LAUNCHER"
"""Set for the workers of `ebmkit train --gpus/--processes`: "PID DEVICE" of who started them."""


@dataclass(frozen=True)
class Place:
    """One process of a job: `rank` of `world_size` over all machines, `local_rank` on its own.

    `launcher` is the process id of ebmkit's own launcher, if that started this process, and `device` the kind of
    device that it was asked for, `"cpu"` or `"cuda"`; `slurm` says that srun did.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    launcher: int | None = None
    device: str | None = None
    slurm: bool = False

    @property
    def alone(self) -> bool:
        """Whether the job has this process only."""
        return self.world_size == 1


def find_place(environment: Mapping[str, str] | None = None) -> Place:
    """This process's place; raises `BadInput` for an environment that contradicts itself.

    Known are ebmkit's own launcher, torchrun and DeepSpeed's (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`,
    `MASTER_PORT`), and Slurm's `srun`.
    """
    environment = os.environ if environment is None else environment
    if "RANK" in environment and "WORLD_SIZE" in environment:
        place = _from_torch(environment)
    elif "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        # The step's variables: those of the whole allocation are also set where no srun started several processes.
        place = _from_slurm(environment)
    else:
        place = Place()
    if not 0 <= place.rank < place.world_size:
        raise BadInput(f"the environment has rank {place.rank} of {place.world_size} processes: unset RANK, WORLD_SIZE")
    return place


def _from_torch(environment: Mapping[str, str]) -> Place:
    rank, size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if size > 1 and "MASTER_ADDR" not in environment:
        raise BadInput("RANK and WORLD_SIZE are set, but not MASTER_ADDR: start the job by torchrun, deepspeed or srun")
    launcher, _, device = environment.get(LAUNCHER, "").partition(" ")
    return Place(
        rank,
        size,
        _number(environment, "LOCAL_RANK", rank if size > 1 else 0),
        environment.get("MASTER_ADDR", "127.0.0.1"),
        _number(environment, "MASTER_PORT", DEFAULT_PORT),
        int(launcher) if launcher.isdecimal() else None,
        device or None,
    )


def _from_slurm(environment: Mapping[str, str]) -> Place:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "127.0.0.1")
    # Jobs that share a machine must not meet at one port.
    port = DEFAULT_PORT + _number(environment, "SLURM_JOB_ID", 0) % 10_000
    return Place(
        _number(environment, "SLURM_PROCID"),
        _number(environment, "SLURM_STEP_NUM_TASKS"),
        _number(environment, "SLURM_LOCALID", 0),
        environment.get("MASTER_ADDR") or first_host(nodes),
        _number(environment, "MASTER_PORT", port),
        slurm=True,
    )


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: `gpu[07-09,12],cpu1` begins with `gpu07`."""
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if match is None:
        raise BadInput(f"the node list '{nodes}' has no host: set MASTER_ADDR to the host of rank 0")
    return "".join(part or "" for part in match.groups())


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise BadInput(f"the environment variable {name} must be a whole number, not '{text}'")
    return int(text)
