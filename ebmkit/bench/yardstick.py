"""The reference that `ebmkit bench` compares with: `benchmarks/reference.py`, set up as a recipe says."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ebmkit.pipeline import build_energy, build_part
from ebmkit.recipe import Recipe

SHIPPED = Path(__file__).parent / "reference.py"
MODULE = "ebmkit.bench.reference"
PARTS = "langevin", "cyclic", "contrastive_divergence"
"""The sampler, buffer and objective that the reference knows."""
PENALTIES = {"wgan_lp": True, "wgan_gp": False}
"""The regularizers that the reference knows, and whether they are one-sided."""


@cache
def reference_module() -> ModuleType:
    """The module of the reference, of the wheel or of the checkout."""
    path = SHIPPED if SHIPPED.is_file() else SHIPPED.parents[2] / "benchmarks" / "reference.py"
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its data class looks its own module up by this name.
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    return module


def why_none(recipe: Recipe) -> str | None:
    """Why the reference does not compute what this recipe does, or None where it does."""
    for part, name in zip((recipe.sampler, recipe.buffer, recipe.objective), PARTS, strict=True):
        if part.name != name:
            return f"{part.kind} '{part.name}' is not the reference's '{name}'"
    names = [part.name for part in recipe.regularizers]
    if len(names) != 1 or names[0] not in PENALTIES:
        return f"the reference has one gradient penalty (wgan_lp or wgan_gp), not {', '.join(names) or 'none'}"
    if recipe.regularizers[0].options.norm != "sample":
        return "the reference's penalty has norm = 'sample'"
    if any(getattr(recipe.sampler.options, name, None) is not None for name in ("clip_gradient", "clamp")):
        return "the reference neither clips gradients nor clamps images"
    if recipe.optimizer.clip_grad_norm is not None:
        return "the reference does not clip the parameter gradient"
    return None if _tables(recipe, "cpu") else "the sampler has no tables `step_sizes` and `sigmas`, [T, K]"


def build_reference(recipe: Recipe, device: str, images: Tensor, batch_size: int | None = None) -> Any:
    """A `Reference` with the recipe's network, newly initialised, its own settings, and uint8 `images[N, C, H, W]`.

    `batch_size` stands for the recipe's, and for its buffer's size; `why_none` has to be None.
    """
    module, penalty, optimizer = reference_module(), recipe.regularizers[0], recipe.optimizer
    tables = _tables(recipe, device)
    assert tables is not None
    settings = module.Settings(
        *tables,
        batch_size=batch_size or recipe.train.batch_size,
        buffer_size=batch_size or recipe.buffer.options.size,
        penalty_weight=penalty.options.weight,
        one_sided=PENALTIES[penalty.name],
        learning_rate=optimizer.learning_rate(0.0),
        betas=optimizer.betas,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        ema_decay=recipe.train.ema_decay,
        flip=recipe.data.horizontal_flip,
    )
    return module.Reference(build_energy(recipe, recipe.context(device), []), images.to(device), settings)


def _tables(recipe: Recipe, device: str) -> tuple[Tensor, Tensor] | None:
    """eta and sigma, `[T, K]`, as the recipe's sampler has them; None where it does not show them."""
    sampler = build_part(recipe.sampler, recipe.context(device))
    found = getattr(sampler, "step_sizes", None), getattr(sampler, "sigmas", None)
    for table in found:
        if not isinstance(table, torch.Tensor) or table.shape != (recipe.time_steps, sampler.steps):
            return None
    return found  # type: ignore[return-value]
