"""Distances between samples and real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ebmkit import recipe as recipes
from ebmkit.distributed.world import World
from ebmkit.errors import BadInput
from ebmkit.lifecycle import Lifecycle
from ebmkit.model import Model, Progress
from ebmkit.pipeline import cross_check
from ebmkit.registry import default_registry
from ebmkit.run_folder import RunFolder, RunInfo
from ebmkit.sampling import from_uint8


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to the rows of `a[N, D]` and `b[M, D]`.

    `|mu_a - mu_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2))` (Dowson & Landau 1982), in float64.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    # The symmetric form sqrt(A)·B·sqrt(A) has the same trace of the root as A·B, and no complex part.
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    trace = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + cov_a.trace() + cov_b.trace() - 2 * trace)


def evaluate_model(
    model: Model,
    data: str | None = None,
    count: int = 512,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
    world: World | None = None,
) -> dict[str, Any] | None:
    """The pixel-space Fréchet distance of `count` samples against all images of `data` (or of the recipe).

    In a job of several processes they share the samples; rank 0 has the result, the others None.
    The trackers of the run that the model belongs to, if any, hear of it; what goes wrong there is told to `say`.
    """
    from ebmkit.data import all_images, expand
    from ebmkit.data.schemes import is_local

    options = model.recipe.data
    if data is not None:
        # Nor does a model file say which folder is written to.
        options = options.model_copy(update={"shards": (data,), "make": None, "cache_dir": None})
    elif not all(is_local(shard) for shard in expand(options.patterns)):
        # A model file may come from anyone: what it names is neither run as a command nor fetched.
        raise BadInput("the model was trained on shards from commands or URLs; name the data with --data")
    batches = list(model.sample_batches(count, seed, batch_size, progress=progress, world=world))
    if world is not None and not world.first:
        return None
    real = from_uint8(all_images(options))
    # Samples are compared as they would be written to a file: within the range of images.
    samples = torch.cat(batches).clamp(-1, 1)
    distance = frechet_distance(samples.flatten(1), real.flatten(1))
    results = {"pixel_frechet_distance": distance, "samples": count, "images": len(real), "seed": seed}
    _tell_trackers(model, results, say)
    return results


def _tell_trackers(model: Model, results: dict[str, Any], say: Callable[[str], None]) -> None:
    if model.path is None:
        return
    run = RunFolder(model.path.parent)
    if model.path.name != run.model.name or not run.recipe.is_file():
        return
    try:
        # The run's own recipe, not the model's: a model file may come from anyone.
        recipe = recipes.from_table(recipes.read_toml(run.recipe), str(run.recipe), run.folder.name)
        # Trackers count on what their `problems` refuses, such as a file outside of the run folder.
        cross_check(recipe, str(run.recipe))
    except BadInput as error:
        say(f"warning: the run's trackers were not told of this evaluation: {error}")
        return
    # Never fatal: the numbers are there, and no run is to be ended.
    hooks = Lifecycle(default_registry(), recipe.trackers, RunInfo(run.folder, recipe.to_table()), say)
    hooks.build(recipe.context(model.device))
    hooks.call(
        "ebmkit_evaluation",
        step=int(steps) if (steps := model.metadata.get("steps", "")).isdecimal() else 0,
        results=results,
    )
