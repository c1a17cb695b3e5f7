"""DeepSpeed in one process, beside the plain engine: the same updates; on a GPU where there is one, too."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch

from ebmkit.state_file import load_state
from run_helpers import environment, run_process, tiny_table

HERE = Path(__file__).parent
KINDS: list[Any] = [("plain", 0), ("deepspeed", 0), ("deepspeed", 1), ("deepspeed", 2)]
OWN = {"zero_optimization": {"reduce_bucket_size": 2000, "contiguous_gradients": False}}
"""Of DeepSpeed's own options; small buckets take other ways through it."""
PRECISIONS = ("float32", "bf16")


@cache
def trained(device: str) -> dict[tuple[str, int, str, bool], dict[str, Any]]:
    """What each engine came to: (engine, stage, precision, offloaded)."""
    folder = Path(mkdtemp(prefix="ebmkit-engines-"))
    keys = [(use, stage, precision, False) for precision in PRECISIONS for use, stage in KINDS]
    keys += [("deepspeed", stage, "float32", True) for stage in (1, 2)]
    cases = []
    for use, stage, precision, offload in keys:
        table = tiny_table(
            "digits",
            data__horizontal_flip=False,
            engine={"use": use, "zero_stage": stage, "offload_optimizer": offload, "deepspeed": OWN if stage else {}},
            optimizer={"learning_rate": 1e-3, "eps": 1e-6, "clip_grad_norm": 1.0},
            train__precision=precision,
        )
        cases.append(table)
    (folder / "cases.json").write_text(json.dumps(cases))
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    words = [HERE / "fed.py", folder / "cases.json", folder, device]
    done = run_process(*words, cwd=folder, env=environment(PYTHONPATH=path), module=False)
    assert done.code == 0, done.out + done.err
    return {key: load_state(folder / f"{number}.safetensors") for number, key in enumerate(keys)}


def distance(one: dict[str, Any], other: dict[str, Any], part: str = "weights") -> float:
    a, b = one[part], other[part]
    apart = sum(float((a[name].double() - b[name].double()).square().sum()) for name in a)
    return float((apart / sum(float(value.double().square().sum()) for value in a.values())) ** 0.5)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return str(request.param)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_float32_is_the_same(device: str, stage: int) -> None:
    found = trained(device)
    assert distance(found["plain", 0, "float32", False], found["deepspeed", stage, "float32", False]) < 1e-5


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_bf16_agrees_within_its_precision(device: str, stage: int) -> None:
    """Both engines round alike, so that they are nearer to each other than to float32."""
    found = trained(device)
    plain = found["plain", 0, "bf16", False]
    assert distance(plain, found["deepspeed", stage, "bf16", False]) < 1e-3
    assert 0 < distance(plain, found["plain", 0, "float32", False]) < 1e-2
    assert all(value.dtype == torch.float32 for value in plain["weights"].values() if value.is_floating_point())


@pytest.mark.parametrize("stage", [1, 2])
def test_an_offloaded_optimizer_makes_the_same_update(device: str, stage: int) -> None:
    found = trained(device)
    assert distance(found["plain", 0, "float32", False], found["deepspeed", stage, "float32", True]) < 1e-5
