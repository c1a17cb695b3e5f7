"""One process, two and four: the same parameters from the same images and random numbers, at equal global batch."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from torch import Tensor

import ranks
from ebmkit.state_file import load_state
from run_helpers import tiny_table

HERE = Path(__file__).parent
REGULARIZERS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "wgan_lp": [{"use": "wgan_lp", "weight": 20.0}],
    "wgan_gp": [{"use": "wgan_gp", "weight": 20.0}],
    "energy_l2": [{"use": "energy_l2"}],
    "spectral_norm": [{"use": "spectral_norm"}],
}
STAGES = (0, 1, 2)
TOLERANCE = 1e-5


def table(regularizer: str, stage: int, accumulate: int, **more: Any) -> dict[str, Any]:
    """A tiny recipe. Its eps is large: at the usual 1e-8, AdamW makes a whole step of a gradient that is rounding."""
    made = tiny_table(
        "digits",
        data__horizontal_flip=False,
        regularizers=REGULARIZERS[regularizer],
        engine={"zero_stage": stage, "accumulate": accumulate},
        optimizer={"learning_rate": 1e-2, "eps": 1e-6, "weight_decay": 0.01, **more},
    )
    # Steep enough, at this learning rate, for the one-sided penalty to have something to do.
    made["energy"]["head"] = "sum"
    return made


@cache
def trained(count: int, accumulate: int = 1, clip: bool = False) -> dict[tuple[str, int], dict[str, Any]]:
    """What every regularizer and stage came to in `count` processes: one job does them all."""
    folder = Path(mkdtemp(prefix="ebmkit-parity-"))
    stages = STAGES if count > 1 else (0,)
    more = {"clip_grad_norm": 0.1} if clip else {}
    cases = {(name, stage): table(name, stage, accumulate, **more) for name in REGULARIZERS for stage in stages}
    (folder / "cases.json").write_text(json.dumps(list(cases.values())))
    path = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    ranks.finish(ranks.start(count, HERE / "fed.py", folder / "cases.json", folder, cwd=folder, env=path))
    return {key: load_state(folder / f"{number}.safetensors") for number, key in enumerate(cases)}


def distance(a: Any, b: Any) -> float:
    """The relative distance of two states, over all their numbers together."""
    left, right = dict(_tensors(a)), dict(_tensors(b))
    assert left.keys() == right.keys()
    apart = sum(float((left[key].double() - right[key].double()).square().sum()) for key in left)
    return float((apart / sum(float(value.double().square().sum()) for value in left.values())) ** 0.5)


def _tensors(state: Any, path: str = "") -> Any:
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, f"{path}/{key}")


def compare(alone: dict[str, Any], together: dict[str, Any]) -> None:
    for part in ("weights", "ema"):
        assert distance(alone[part], together[part]) < TOLERANCE, part
    assert distance(alone["engine"]["state"], together["engine"]["state"]) < 10 * TOLERANCE, "moments"
    assert len(alone["metrics"]) == len(together["metrics"])
    for one, several in zip(alone["metrics"], together["metrics"], strict=True):
        assert several == pytest.approx(one, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes(stage: int, regularizer: str) -> None:
    compare(trained(1)[regularizer, 0], trained(2)[regularizer, stage])


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("stage", STAGES)
def test_four_processes(stage: int, regularizer: str) -> None:
    compare(trained(1)[regularizer, 0], trained(4)[regularizer, stage])


# Spectral normalization refines its estimate at every forward, so that micro-batches do change it.
@pytest.mark.slow
@pytest.mark.parametrize("regularizer", [name for name in REGULARIZERS if name != "spectral_norm"])
@pytest.mark.parametrize("stage", STAGES)
def test_micro_batches_and_clipping(stage: int, regularizer: str) -> None:
    alone = trained(1, clip=True)[regularizer, 0]
    assert distance(alone["weights"], trained(1)[regularizer, 0]["weights"]) > 10 * TOLERANCE, "clipping did nothing"
    compare(alone, trained(1, 2, clip=True)[regularizer, 0])
    compare(alone, trained(2, 2, clip=True)[regularizer, stage])


def test_the_comparison_would_see_a_difference() -> None:
    """Another regularizer, or other noise, is far beyond the tolerance; and the one-sided penalty is at work."""
    alone = trained(1)
    assert distance(alone["none", 0]["weights"], alone["wgan_lp", 0]["weights"]) > 10 * TOLERANCE
    assert any(row["wgan_lp/penalty"] > 0 for row in alone["wgan_lp", 0]["metrics"])
