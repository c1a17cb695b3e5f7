"""The configuration that DeepSpeed gets: the recipe's `[engine]`, and nothing decided twice. Without torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from ebmkit.errors import Problem
from ebmkit.options import EngineOptions, OptimizerOptions

STAGE_3 = (
    "stage 3 cannot be used: it splits the parameters, and gradients by the image and the penalty's double backward "
    "need whole ones (they would crash, or be wrong in silence); use 2"
)
OURS: Mapping[str, str] = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.batch_size and engine.accumulate",
    "gradient_accumulation_steps": "engine.accumulate",
    "gradient_clipping": "optimizer.clip_grad_norm",
    "optimizer": "[optimizer]",
    "scheduler": "optimizer.learning_rate",
    "bf16": "train.precision",
    "bfloat16": "train.precision",
    "fp16": "train.precision",
    "amp": "train.precision",
    "torch_autocast": "train.precision",
    "checkpoint": "train.checkpoint_every",
    "zero_allow_untested_optimizer": "[optimizer]",
    "zero_force_ds_cpu_optimizer": "engine.offload_optimizer",
    "zero_optimization.stage": "engine.zero_stage",
    "zero_optimization.offload_optimizer": "engine.offload_optimizer",
}
"""What a recipe says elsewhere. The rest of `[engine.deepspeed]` goes to DeepSpeed as it is."""


def is_plain(options: EngineOptions, world_size: int) -> bool:
    """Whether plain torch computes the update, not DeepSpeed."""
    return options.use == "plain" or (options.use == "auto" and world_size == 1)


def engine_problems(options: EngineOptions, world_size: int = 1) -> Iterator[Problem]:
    """What is wrong with a recipe's `[engine]` for so many processes."""
    if options.zero_stage == 3:
        yield Problem("engine.zero_stage", STAGE_3)
    if options.offload_optimizer and options.zero_stage == 0:
        yield Problem("engine.offload_optimizer", "needs engine.zero_stage 1 or 2; stage 0 keeps it on the device")
    if options.use == "plain" and world_size > 1:
        yield Problem("engine.use", f"'plain' is for one process, and this job has {world_size}: use 'auto'")
    if not isinstance(options.deepspeed.get("zero_optimization", {}), Mapping):
        yield Problem("engine.deepspeed.zero_optimization", "must be a table; the stage is engine.zero_stage")
    for path, ours in OURS.items():
        found: Any = options.deepspeed
        for key in path.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None:
            why = STAGE_3 if path == "zero_optimization.stage" and found == 3 else f"is set by {ours}"
            yield Problem(f"engine.deepspeed.{path}", why)


def deepspeed_config(options: EngineOptions, optimizer: OptimizerOptions, micro_batch: int) -> dict[str, Any]:
    """DeepSpeed's configuration: `[engine.deepspeed]` as it is, and what the rest of the recipe says."""
    config: dict[str, Any] = _mutable(options.deepspeed)
    zero = config.setdefault("zero_optimization", {})
    zero["stage"] = options.zero_stage
    if options.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
        # torch's AdamW, so that the update is the same as anywhere else; DeepSpeed's own one needs a compiler.
        config["zero_force_ds_cpu_optimizer"] = False
    config |= {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": options.accumulate,
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": optimizer.clip_grad_norm or 0.0 if options.zero_stage else 0.0,
    }
    return config


def _mutable(value: Any) -> Any:
    """A copy whose tuples are lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _mutable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_mutable(item) for item in value]
    return copy.copy(value)
