"""The images that a model is measured on, and the energies that it gives them."""

from __future__ import annotations

import os
from collections.abc import Callable
from glob import has_magic
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmkit.errors import BadData, BadInput
from ebmkit.model import Model
from ebmkit.options import DataOptions

MOST_GLOBS = 2
"""Parts with * or ? in a path that a model file names."""
Progress = Callable[[int, int | None], None]
"""Called with (images done, all of them or None)."""


def check_time_step(model: Model, t: int) -> None:
    """Raise `BadInput` unless the model knows the time step `t`."""
    if not 1 <= t <= model.recipe.time_steps:
        raise BadInput(f"--t {t}: the model's time steps are 1 to {model.recipe.time_steps}; 1 is the last of a sweep")


def shards_of(model: Model, data: str | None, resize: bool = False) -> DataOptions:
    """How to read the shards `data`, by default those that the model was trained on; raises `BadInput` for remote ones.

    `resize` fits images of other sizes to the model's.
    """
    from ebmkit.data.patterns import braces, expand

    options, patterns = model.recipe.data, model.recipe.data.patterns
    # A model file may come from anyone: it gives no advice, and does not say which folder is written to, or how many
    # processes are started.
    ours: dict[str, Any] = {"make": None, "cache_dir": None, "workers": min(options.workers, os.cpu_count() or 1)}
    if data is not None:
        ours["shards"] = (data,)
    else:
        try:
            # What it names is neither run as a command, nor fetched, nor searched for.
            if not all(map(_nearby, (name for pattern in patterns for name in braces(pattern)))):
                raise BadData("the model was trained on shards from commands, URLs or many folders")
            expand(patterns)
        except BadData as error:
            raise BadInput(f"{model.path or model.recipe.name}: {error}; name the data with --data") from error
    options = options.model_copy(update=ours)
    return options.model_copy(update={"wrong_size": "resize"}) if resize else options


def _nearby(name: str) -> bool:
    """Whether this names files that are found without a search through all folders of the machine."""
    from ebmkit.data.schemes import is_local

    parts = Path(name).parts
    return is_local(name) and "**" not in parts and sum(map(has_magic, parts)) <= MOST_GLOBS


def read_images(options: DataOptions, limit: int | None, say: Callable[[str], None]) -> Tensor:
    """The first `limit` images of the shards, or all, `[N, C, H, W]` uint8."""
    from ebmkit.data import all_images

    return all_images(options, limit, warn=lambda text: say(f"warning: {text}"))


def energies_of(
    model: Model,
    x: Tensor,
    t: int = 1,
    batch_size: int = 256,
    progress: Progress = lambda done, total: None,
) -> Tensor:
    """Energies `[N]`, float64 on the CPU, of images `x[N, C, H, W]` in [-1, 1]; `BadInput` where one is not finite."""
    found = []
    for begin in range(0, len(x), batch_size):
        found.append(model(x[begin : begin + batch_size], t).double().cpu())
        progress(min(begin + batch_size, len(x)), len(x))
    energies = torch.cat(found)
    if not bool(energies.isfinite().all()):
        count = int((~energies.isfinite()).sum())
        raise BadInput(f"the energies of {count} of {len(x)} images are not finite; such a model tells nothing apart")
    return energies
