"""`[engine]`: what is refused, and what DeepSpeed gets."""

from __future__ import annotations

from typing import Any

import pytest

from ebmkit import recipe as recipes
from ebmkit.engine.settings import deepspeed_config
from ebmkit.errors import RecipeError
from ebmkit.options import EngineOptions, OptimizerOptions
from ebmkit.pipeline import cross_check
from run_helpers import tiny_table


def check(world_size: int = 1, **engine: Any) -> None:
    recipe = recipes.from_table(tiny_table("digits", engine=engine), "tiny", "tiny")
    cross_check(recipe, "tiny", world_size)


@pytest.mark.parametrize(
    ("engine", "world_size", "told"),
    [
        ({"zero_stage": 3}, 1, "engine.zero_stage .*whole"),
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, 1, "engine.deepspeed.zero_optimization.stage .*whole"),
        ({"deepspeed": {"zero_optimization": {"stage": 1}}}, 1, "is set by engine.zero_stage"),
        ({"deepspeed": {"fp16": {"enabled": True}}}, 1, "engine.deepspeed.fp16 .*train.precision"),
        ({"deepspeed": {"train_batch_size": 4}}, 1, "train.batch_size"),
        ({"deepspeed": {"zero_optimization": True}}, 1, "engine.deepspeed.zero_optimization .*must be a table"),
        ({"deepspeed": {"x": float("inf")}}, 1, "engine.deepspeed .*finite"),
        ({"offload_optimizer": True}, 2, "engine.offload_optimizer .*zero_stage 1 or 2"),
        ({"use": "plain"}, 2, "engine.use .*one process"),
        ({"accumulate": 3}, 1, r"train.batch_size .*divisible by 1 x 3 .*not 8"),
        ({"accumulate": 2}, 8, r"train.batch_size .*divisible by 8 x 2 .*not 8"),
        ({"zero_stage": 4}, 1, "at most 3"),
    ],
)
def test_refused(engine: dict[str, Any], world_size: int, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        check(world_size, **engine)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_accepted(stage: int) -> None:
    check(4, zero_stage=stage, accumulate=2, deepspeed={"zero_optimization": {"overlap_comm": True}})


def test_deepspeed_gets_its_own_options_unchanged() -> None:
    more = {"zero_optimization": {"reduce_bucket_size": 5, "nested": [1, {"a": (2,)}]}, "wall_clock_breakdown": True}
    options = EngineOptions(zero_stage=2, accumulate=3, deepspeed=more)
    config = deepspeed_config(options, OptimizerOptions(clip_grad_norm=0.5), micro_batch=4)
    assert config["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 5, "nested": [1, {"a": [2]}]}
    assert config["wall_clock_breakdown"] is True
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_accumulation_steps"] == 3
    assert config["gradient_clipping"] == 0.5
    assert "stage" not in more["zero_optimization"], "the recipe's own table is left alone"


def test_offloading_uses_torchs_adamw() -> None:
    options = EngineOptions(zero_stage=1, offload_optimizer=True)
    config = deepspeed_config(options, OptimizerOptions(), micro_batch=4)
    assert config["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    assert config["zero_force_ds_cpu_optimizer"] is False


def test_the_table_survives_the_recipe_file() -> None:
    recipe = recipes.from_table(
        tiny_table("digits"), "tiny", "tiny", {"engine.deepspeed.zero_optimization.overlap_comm": True}
    )
    assert recipe.engine.deepspeed == {"zero_optimization": {"overlap_comm": True}}
    assert recipes.from_table(recipe.to_table(), "again", "tiny").engine == recipe.engine
