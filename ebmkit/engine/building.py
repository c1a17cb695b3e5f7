"""Choosing the engine."""

from __future__ import annotations

from ebmkit.distributed.world import World
from ebmkit.energy_model import EnergyModel
from ebmkit.engine.interface import Engine
from ebmkit.engine.plain import PlainEngine
from ebmkit.engine.settings import is_plain
from ebmkit.recipe import Recipe


def build_engine(recipe: Recipe, module: EnergyModel, world: World, device: str, fused: bool = False) -> Engine:
    """The engine that the recipe and the number of processes ask for: plain torch for one, DeepSpeed for several.

    `fused` lets plain torch use its fused AdamW.
    """
    options = recipe.engine
    if is_plain(options, world.size):
        return PlainEngine(module, recipe.optimizer, options.accumulate, fused)
    from ebmkit.engine.sharded import DeepSpeedEngine

    micro_batch = recipe.train.batch_size // (world.size * options.accumulate)
    return DeepSpeedEngine(module, recipe.optimizer, options, micro_batch, device)
