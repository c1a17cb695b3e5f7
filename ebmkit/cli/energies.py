"""`ebmkit ood` and `ebmkit likelihood`: what a model's energies say of images."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from ebmkit.cli.sampling import Device, ModelFile, Seed
from ebmkit.console import console, counting


class Support(StrEnum):
    """Where the density is not 0."""

    images = "images"
    all = "all"


TimeStep = Annotated[int, typer.Option("--t", min=1, help="The time step of the energy; 1 is the last of a sweep.")]
Data = Annotated[str | None, typer.Option(help="The model's side: held-out shards; by default what it was trained on.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def ood(
    model: ModelFile,
    against: Annotated[str, typer.Option(help="Shards of other images, or 'noise': as many draws of N(0, I).")],
    data: Data = None,
    t: TimeStep = 1,
    images: Annotated[int | None, typer.Option(min=2, help="Take the first so many of each; by default all.")] = None,
    resize: Annotated[bool, typer.Option(help="Resize other images to the model's size.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 256,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Print how well the energy tells other images from the model's data: the area under the ROC curve.

    1 is perfect, 0.5 is chance, below that the others look more like data than the data. With its 95 % interval, and
    the share of the others that pass a threshold which 95 % of the data pass.

    Example: ebmkit ood runs/digits/model.safetensors --against noise
    """
    from ebmkit.detection import detect
    from ebmkit.model import load_model

    target, say = console(), partial(console(stderr=True).print, markup=False)
    loaded = load_model(model, device, say=say)
    with counting(target, "energies", "images") as progress:
        result = detect(loaded, against, data, t, images, resize, seed, batch_size, progress, say)
    if as_json:
        typer.echo(json.dumps(result))
        return
    low, high = result["interval"]
    target.print(
        f"AUROC {result['auroc']:.4f} (95 % interval {low:.4f} to {high:.4f}), false positives at 95 % true positives "
        f"{result['fpr_at_95_tpr']:.4f}\n"
        f"energy at t = {t}: {_moments(result['energy'])} on {result['images']} images of {result['data']}, "
        f"{_moments(result['against_energy'])} on {result['against_images']} of {against}",
        markup=False,
    )


def _moments(energy: dict[str, float]) -> str:
    return f"{energy['mean']:.4g} ± {energy['std']:.2g}"


def likelihood(
    model: ModelFile,
    data: Data = None,
    t: TimeStep = 1,
    temperature: Annotated[float, typer.Option(help="Of the density exp(-f / temperature); the paper's is 1.")] = 1.0,
    support: Annotated[
        Support, typer.Option(help="Where the density is not 0: in the cube of images, or everywhere.")
    ] = Support.images,
    images: Annotated[int, typer.Option(min=2, help="Take at most so many images.")] = 1000,
    chains: Annotated[int, typer.Option(min=2, help="Chains, all at a time.")] = 64,
    stops: Annotated[int, typer.Option(min=2, help="Densities between the Gaussian and the model.")] = 300,
    leaps: Annotated[int, typer.Option(min=1, help="Leapfrog steps at each, one gradient evaluation a chain.")] = 3,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Estimate a model's log-likelihood of images by annealed importance sampling, in nats and bits per dimension.

    Says how far it can be believed: effective sample size, interval, and a lower bound by chains that go back from the
    images.

    Example: ebmkit likelihood runs/digits/model.safetensors --stops 1000 --temperature 0.1
    """
    from ebmkit.annealing.estimate import Annealing, estimate_likelihood
    from ebmkit.model import load_model

    target, say = console(), partial(console(stderr=True).print, markup=False)
    loaded = load_model(model, device, say=say)
    effort = Annealing(chains, stops, leaps)
    with counting(target, "annealing", "gradient evaluations") as progress:
        result = estimate_likelihood(loaded, data, t, temperature, support.value, images, effort, seed, progress, say)
    if as_json:
        typer.echo(json.dumps(result))
        return
    (low, high), (few, many) = result["interval"], result["bits_per_dim_interval"]
    target.print(
        f"log-likelihood {result['log_likelihood']:.2f} nats an image (95 % interval {low:.2f} to {high:.2f}; "
        f"lower bound {result['lower_bound']:.2f})\n"
        f"bits/dim {result['bits_per_dim']:.4f} (95 % interval {few:.4f} to {many:.4f}; "
        f"upper bound {result['bits_per_dim_upper_bound']:.4f}), of 256 grey levels, uniformly dequantised\n"
        f"log Z {result['log_partition']:.2f} ± {result['log_partition_error']:.2f}, effective sample size "
        f"{result['effective_sample_size']:.1f} of {chains} chains, {result['acceptance']:.0%} of moves accepted\n"
        f"t = {t}, temperature {temperature:g}, {_SUPPORTS[support]}, {result['images']} images of {result['data']}",
        markup=False,
    )


_SUPPORTS = {Support.images: "a density over the cube of images", Support.all: "a density over all real images"}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(ood)
    app.command()(likelihood)
