"""Measuring sampling: `Model.sample` and the reference's sweep in turn, at the same batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ebmkit.bench.counting import Cost, cost_of
from ebmkit.bench.images import made_up
from ebmkit.bench.memory import PeakMemory
from ebmkit.bench.timing import Plan, Ratio, Timing, interleaved, ratio, seconds_of
from ebmkit.bench.training import Progress
from ebmkit.bench.yardstick import build_reference, reference_module
from ebmkit.model import Model
from ebmkit.pipeline import build_energy, build_part, build_regularizers
from ebmkit.recipe import Recipe


@dataclass(frozen=True)
class SamplingReport:
    """Times of a sweep of one batch, `gradients` evaluations for each image; without a reference, its part is None."""

    batch_size: int
    gradients: int
    ebmkit: Timing
    fast: str
    reference: Timing | None = None
    ratio: Ratio | None = None
    cost: Cost | None = None


def measure_sampling(recipe: Recipe, device: str, plan: Plan, compare: bool, progress: Progress) -> SamplingReport:
    """Draw a batch of images from new weights, by turns; `compare` says whether there is a reference."""
    progress("sampling", 0, 1)
    size = recipe.train.batch_size
    context = recipe.context(device)
    gradients = recipe.time_steps * build_part(recipe.sampler, context).steps
    cost = cost_of_a_sweep(recipe, device, gradients) if compare else None

    def ours() -> None:
        model.sample(size, batch_size=size)

    def theirs() -> None:
        reference.sample(size).cpu()

    calls: dict[str, Callable[[], None]] = {"ebmkit": ours}
    with PeakMemory(device) as memory:
        model = Model(build_energy(recipe, context, build_regularizers(recipe, context)), recipe, device, {})
        first = {"ebmkit": seconds_of(ours, device)}
    peaks = {"ebmkit": memory.rise}
    if compare:
        calls["reference"] = theirs
        images = made_up(1, recipe.data.shape)
        with PeakMemory(device) as memory:
            # Without the 10,000 slots of a buffer, which sampling has no use for.
            reference = build_reference(recipe, device, images, size)
            first["reference"] = seconds_of(theirs, device)
        peaks["reference"] = memory.rise
    found = interleaved(calls, device, plan, lambda done, total: progress("sampling", done, total))
    timings = {name: Timing(found[name], first[name], peaks[name]) for name in calls}
    mine, others = timings["ebmkit"], timings.get("reference")
    return SamplingReport(
        size, gradients, mine, str(model.parts), others, ratio(mine, others) if others else None, cost
    )


def cost_of_a_sweep(recipe: Recipe, device: str, gradients: int) -> Cost:
    """FLOPs and traffic of all the gradient evaluations of a batch, from those of one image and of two."""
    energy = build_energy(recipe, recipe.context(device), []).requires_grad_(False)
    gradient = reference_module().gradient

    def cost_at(count: int) -> Cost:
        x = torch.zeros(count, *recipe.data.shape, device=device)
        t = torch.ones(count, dtype=torch.int64, device=device)
        return cost_of(lambda: gradient(energy, x, t))

    once = cost_at(1).at(recipe.train.batch_size, cost_at(2))
    return Cost(gradients * once.flops, gradients * once.bytes)
