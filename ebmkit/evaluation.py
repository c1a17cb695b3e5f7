"""Measuring a model: its samples compared with real images, and what is kept of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ebmkit import __version__
from ebmkit import recipe as recipes
from ebmkit.distributed.world import Solo, World
from ebmkit.errors import BadInput
from ebmkit.lifecycle import Lifecycle
from ebmkit.metrics import comparing, fidelity, names
from ebmkit.metrics.gaussian import frechet_distance as frechet_distance
from ebmkit.metrics.networks import Features, Network, bind_extractor, label_of, open_networks
from ebmkit.metrics.reference import real_features
from ebmkit.model import Model
from ebmkit.model_images import shards_of
from ebmkit.pipeline import cross_check
from ebmkit.registry import default_registry
from ebmkit.run_folder import RunFolder, RunInfo

Counting = Callable[[str, str], AbstractContextManager[Callable[[int, int | None], None]]]
"""`with counting("sampling", "images") as progress: progress(done, total)`."""


@contextmanager
def _uncounted(what: str, unit: str) -> Any:
    yield lambda done, total: None


def evaluate_model(
    model: Model,
    data: str | None = None,
    count: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    *,
    metrics: Sequence[str] = (),
    extractor: str | None = None,
    extractor_options: Mapping[str, Any] | None = None,
    weights: Sequence[Path] = (),
    floor: bool = False,
    overrides: Mapping[str, Any] | None = None,
    counting: Counting = _uncounted,
    say: Callable[[str], None] = lambda message: None,
    world: World | None = None,
) -> dict[str, Any] | None:
    """The `metrics` of `count` samples against all images of `data` (or of the recipe); see `ebmkit.evaluate`.

    In a job of several processes they share the work; rank 0 has the result, the others None. It is appended to the run
    that the model belongs to, if any, whose trackers hear of it; what goes wrong there is told to `say`.
    """
    world = world or Solo()
    part = None if extractor is None else bind_extractor(extractor, extractor_options)
    chosen = names.choose(metrics, None if part is None else label_of(part))
    network = any(metric.features != names.PIXEL_FEATURES for metric in chosen)
    count = count or (names.NETWORK_COUNT if network else names.PIXEL_COUNT)
    options = shards_of(model, data)
    model.sampling_recipe(overrides)
    comparing.require_enough(chosen, count)
    if fidelity.needed(chosen):
        fidelity.require()
    # Whatever may be missing is told before hours of sampling.
    networks = open_networks(chosen, part, weights, model.recipe.context(model.device), world)
    if world.first and (remark := comparing.remark(chosen, count)):
        say(f"remark: {remark}")
    needed = list(dict.fromkeys(metric.features for metric in chosen if metric.what != "inception_score"))
    with counting("features of real images", "images") as progress:
        real = real_features(options, networks, needed, batch_size, world, progress, say) if needed else {}
    images = len(next(iter(real.values()))) if real else 0
    if world.first and needed:
        comparing.require_enough(chosen, count, images)
        if floor:
            comparing.require_floor(count, images)
    wanted = {metric.features for metric in chosen}
    samples = _sample_features(model, networks, wanted, count, seed, batch_size, overrides, counting, world)
    if samples is None or real is None:
        return None
    shape = options.shape
    with counting("comparing", "metrics") as progress:
        found = comparing.compare(chosen, samples, real, shape, model.device, progress)
    floors = {}
    if floor:
        with counting("floor", "metrics") as progress:
            floors = comparing.floor(chosen, real, count, seed, shape, model.device, progress)
    labels = [item.label for item in networks if item.label is not None]
    results = {
        **found,
        **({"floor": floors} if floor else {}),
        "samples": count,
        "images": images,
        "seed": seed,
        **({"overrides": dict(overrides)} if overrides else {}),
        "data": " ".join(options.patterns),
        "extractor": ", ".join(labels) or None,
        "versions": _versions(networks, fidelity.needed(chosen)),
    }
    _keep(model, found, results, say)
    return results


def _sample_features(
    model: Model,
    networks: Sequence[Network],
    wanted: set[str],
    count: int,
    seed: int,
    batch_size: int,
    overrides: Mapping[str, Any] | None,
    counting: Counting,
    world: World,
) -> Features | None:
    """Features of the samples, on rank 0; the images are let go as they are drawn."""

    def features(images: torch.Tensor) -> Features:
        bad = int((~images.isfinite()).flatten(1).any(1).sum())
        if bad:
            raise BadInput(
                f"{bad} of {len(images)} samples have pixels that are not finite, so that nothing can be measured: "
                "the model's weights or its sampler give them"
            )
        computed: Features = {}
        for network in networks:
            computed |= {name: value for name, value in network.compute(images).items() if name in wanted}
        return computed

    with counting("sampling", "gradient evaluations") as progress:
        batches = list(model.map_batches(features, count, seed, batch_size, overrides, progress, world))
    if not world.first:
        return None
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _versions(networks: Sequence[Network], with_fidelity: bool) -> dict[str, str]:
    found = {"ebmkit": __version__, "torch": str(torch.__version__)}
    if with_fidelity:
        found["torch-fidelity"] = fidelity.fidelity_version()
    for network in networks:
        found |= {name: text for name, text in network.versions.items() if name not in found}
    return found


def _keep(model: Model, found: Mapping[str, float], results: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Append the evaluation to the run that the model belongs to, and tell its trackers."""
    if model.path is None:
        return
    run = RunFolder(model.path.parent)
    if model.path.name != run.model.name or not run.recipe.is_file():
        return
    step = int(steps) if (steps := model.metadata.get("steps", "")).isdecimal() and len(steps) < 20 else 0
    others = {name: value for name, value in results.items() if name not in found}
    row = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, "metrics": dict(found), **others}
    try:
        run.append_evaluation(row)
    except OSError as error:
        say(f"warning: {run.evaluations}: the evaluation was not appended: {error.strerror}")
    numbers = {
        name: value
        for name, value in results.items()
        if name not in ("floor", "data", "versions") and value is not None
    }
    # Trackers have one curve for a metric: numbers of another sampler than the model's are not on it.
    if "overrides" not in results:
        _tell_trackers(model, run, step, numbers, say)


def _tell_trackers(
    model: Model, run: RunFolder, step: int, results: Mapping[str, Any], say: Callable[[str], None]
) -> None:
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
    hooks.call("ebmkit_evaluation", step=step, results=dict(results))
