"""Where a process stands in its job, from the environments of several launchers."""

from __future__ import annotations

import pytest

from ebmkit.distributed.place import Place, find_place, first_host
from ebmkit.errors import BadInput

TORCH = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu1", "MASTER_PORT": "1234"}
SLURM = {
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "4242",
}


def test_no_launcher_is_one_process() -> None:
    assert find_place({}) == Place(0, 1, 0)
    assert find_place({}).alone


def test_torchrun_and_deepspeed() -> None:
    assert find_place(TORCH) == Place(5, 8, 1, "gpu1", 1234)


def test_ebmkits_own_launcher() -> None:
    assert find_place(TORCH | {"EBMKIT_LAUNCHER": "77 cpu"}) == Place(5, 8, 1, "gpu1", 1234, 77, "cpu")


def test_srun() -> None:
    assert find_place(SLURM) == Place(9, 16, 1, "gpu07", 29_500 + 4242, slurm=True)
    assert find_place(SLURM | {"MASTER_ADDR": "head", "MASTER_PORT": "5"}) == Place(9, 16, 1, "head", 5, slurm=True)


def test_a_batch_script_of_slurm_is_one_process() -> None:
    """sbatch sets the variables of the whole job in the script, where nobody has started the other tasks."""
    assert find_place({"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_JOB_NODELIST": "gpu[07-08]"}).alone


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu07", "gpu07"),
        ("gpu07,gpu09", "gpu07"),
        ("gpu[07-09,12],cpu1", "gpu07"),
        ("gpu[12,14]", "gpu12"),
        ("rack[3-4]-node,x", "rack3-node"),
        ("a-b-1", "a-b-1"),
    ],
)
def test_the_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"RANK": "8"}, "rank 8 of 8"),
        ({"RANK": "one"}, "RANK must be a whole number, not 'one'"),
        ({"MASTER_ADDR": None}, "not MASTER_ADDR"),
    ],
)
def test_an_environment_that_contradicts_itself(wrong: dict[str, str | None], told: str) -> None:
    environment = {key: value for key, value in (TORCH | wrong).items() if value is not None}
    with pytest.raises(BadInput, match=told):
        find_place(environment)
