"""The log-likelihood of a model on images: energies, minus the estimated log partition function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ebmkit import __version__
from ebmkit.annealing.bridge import GaussianBase
from ebmkit.annealing.path import Progress, find_path
from ebmkit.annealing.weights import Annealed, LogPartition, anneal, anneal_back, log_partition
from ebmkit.errors import BadInput
from ebmkit.model import Model
from ebmkit.model_images import check_time_step, energies_of, read_images, shards_of
from ebmkit.noise import generator
from ebmkit.pipeline import frozen

Support: TypeAlias = Literal["images", "all"]
"""Where the density is not 0: the cube in which images lie, or everywhere."""
LEVELS = 256
SCALE = (LEVELS - 1) / 2
"""Pixel values `v` are `x = v / 127.5 - 1`."""
QUANTILE = 1.959963984540054
FEW = 10.0
"""An effective sample size below this says that a few chains decide the estimate."""
EDGE = 1 + 0.5 / SCALE
"""The cube `[-EDGE, EDGE]^D` holds all images, and their grey levels' width."""
FAR = 2.0
"""Chains whose root mean square is so many times that of the images, or its inverse, are not where the images are."""
APART = 5.0
"""Nats between the estimate and the lower bound that make neither of them the log-likelihood."""


@dataclass(frozen=True)
class Annealing:
    """How hard to try: `chains` of `stops` stops, with `leaps` gradient evaluations at each."""

    chains: int = 64
    stops: int = 300
    leaps: int = 3

    def __post_init__(self) -> None:
        if self.chains < 2 or self.stops < 2 or self.leaps < 1:
            raise BadInput("annealing needs at least 2 chains, 2 stops and 1 leapfrog step")


def dequantised(images: Tensor, random: torch.Generator) -> Tensor:
    """uint8 images `[N, C, H, W]` with uniform noise of one grey level's width added, around [-1, 1]."""
    noise = torch.rand(images.shape, generator=random)
    return (images.float() + noise - 0.5) / SCALE - 1


def bits_per_dim(log_likelihood: float, dimensions: int) -> float:
    """Of a log density in nats per image, over pixels in [-1, 1], for 8-bit values (Theis et al. 2016)."""
    return -log_likelihood / (dimensions * math.log(2)) + math.log2(SCALE)


def estimate_likelihood(
    model: Model,
    data: str | None = None,
    t: int = 1,
    temperature: float = 1.0,
    support: Support = "images",
    limit: int | None = 1000,
    annealing: Annealing | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """The mean log-likelihood in nats and bits per dimension of the shards `data`, by annealed importance sampling.

    The density is `exp(-f(x, t) / temperature) / Z`, over the cube of images or over all real `x` (`support`); `Z` is
    estimated by chains from a Gaussian that is fitted to the images. Raises `BadInput` for a time step, shards or
    settings that cannot be used.
    """
    check_time_step(model, t)
    if not (math.isfinite(temperature) and temperature > 0):
        raise BadInput(f"--temperature {temperature:g}: must be a number above 0")
    annealing = annealing or Annealing()
    edge = EDGE if support == "images" else None
    shards = shards_of(model, data)
    images = dequantised(read_images(shards, limit, say), generator("cpu", seed, "likelihood", "dequantise"))
    if len(images) < 2:
        raise BadInput("fewer than two images: there is no mean log-likelihood to estimate")
    energies = energies_of(model, images, t) / temperature
    forward, backward, started = _anneal_both(model, images, t, temperature, edge, annealing, seed, progress)
    partition, dimensions = log_partition(forward.log_weights), images[0].numel()
    value = -float(energies.mean()) - partition.value
    error = math.hypot(partition.error, float(energies.std()) / math.sqrt(len(energies)))
    bound = -float(energies.mean()) - float(backward.log_weights.mean())
    spread = float(backward.log_weights.std()) / math.sqrt(started)
    warnings = list(_doubts(partition, forward, images, value - bound))
    for warning in warnings:
        say(f"warning: {warning}")
    if data is None:
        say("warning: these are images that the model was trained on; name held-out shards by --data")
    interval = [value - QUANTILE * error, value + QUANTILE * error]
    return {
        "log_likelihood": value,
        "interval": interval,
        "lower_bound": bound,
        "lower_bound_error": math.hypot(spread, float(energies.std()) / math.sqrt(len(energies))),
        "bits_per_dim": bits_per_dim(value, dimensions),
        "bits_per_dim_interval": [bits_per_dim(edge, dimensions) for edge in reversed(interval)],
        "bits_per_dim_upper_bound": bits_per_dim(bound, dimensions),
        "log_partition": partition.value,
        "log_partition_error": partition.error,
        "log_partition_lower_bound": partition.lower_bound,
        "effective_sample_size": partition.effective,
        "acceptance": forward.acceptance,
        "believable": not warnings,
        "warnings": warnings,
        "t": t,
        "temperature": temperature,
        "support": support,
        "dequantisation": "uniform over one of 256 grey levels",
        "data": " ".join(shards.patterns),
        "held_out": data is not None,
        "images": len(images),
        "backward_chains": started,
        "chains": annealing.chains,
        "stops": annealing.stops,
        "leaps": annealing.leaps,
        "seed": seed,
        "versions": {"ebmkit": __version__, "torch": str(torch.__version__)},
    }


def _anneal_both(
    model: Model,
    images: Tensor,
    t: int,
    temperature: float,
    edge: float | None,
    annealing: Annealing,
    seed: int,
    progress: Progress,
) -> tuple[Annealed, Annealed, int]:
    """Chains from the base and chains from images, along one path; and the number of the latter."""
    device, chains = model.device, annealing.chains

    def energy(x: Tensor) -> Tensor:
        time = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
        found: Tensor = model.energy(x, time) / temperature
        return found

    # Of all images, not of the first: shards may be sorted.
    chosen = torch.randperm(len(images), generator=generator("cpu", seed, "likelihood", "images"))[:chains]
    base, starts = GaussianBase.fitted(images.to(device), edge), images[chosen].to(device)
    random = generator(device, seed, "likelihood")
    stops, leaps = annealing.stops, annealing.leaps
    ahead, total = stops * leaps * chains, stops * leaps * (chains + len(starts))
    with frozen(model.energy):
        path = find_path(energy, base, stops, chains, leaps, random)
        forward = anneal(energy, base, path, chains, leaps, random, lambda done, _: progress(done, total))
        backward = anneal_back(energy, base, path, starts, leaps, random, lambda done, _: progress(ahead + done, total))
    return forward, backward, len(starts)


def _doubts(partition: LogPartition, forward: Annealed, images: Tensor, apart: float) -> list[str]:
    doubts = []
    chains, far = len(forward.log_weights), _size(forward.x) / _size(images)
    if partition.effective < FEW:
        doubts.append(
            f"the effective sample size is {partition.effective:.1f} of {chains} chains, too small to believe the "
            "estimate or its interval; more --stops help most, then --leaps and --chains"
        )
    if abs(apart) > APART:
        doubts.append(
            f"the estimate and the lower bound are {apart:.1f} nats apart; the log-likelihood is known no better"
        )
    if not 1 / FAR < far < FAR:
        doubts.append(
            f"the chains end where pixels have {far:.3g} times the size of the images': the density's mass is not "
            "where the images are, and may not be finite; --support images keeps it there"
        )
    if forward.acceptance < 0.5:
        doubts.append(f"only {forward.acceptance:.0%} of the chains' moves were accepted; more --stops may help")
    return doubts


def _size(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
