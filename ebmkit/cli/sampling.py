"""`ebmkit sample` and `ebmkit evaluate`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ebmkit.cli.launching import Gpus, Processes, launch_workers
from ebmkit.cli.training import SetValues, collect
from ebmkit.console import console, counting


class Speed(StrEnum):
    """`train.fast`, for drawing."""

    auto = "auto"
    off = "off"
    max = "max"


ModelFile = Annotated[Path, typer.Argument(help="A model.safetensors file, its folder, or hf://owner/name.")]
Device = Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time; changes the images by rounding at most.")]
Fast = Annotated[Speed | None, typer.Option(help="The fast path; by default what the recipe's train.fast was.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")]


def sample(
    model: ModelFile,
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="KEY=VALUE")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many images.")] = 64,
    out: Annotated[
        Path,
        typer.Option(
            help="grid.png for one picture, a folder for PNG files, .npz for a uint8 NHWC array 'images', "
            ".safetensors for floats 'images' [N, C, H, W]."
        ),
    ] = Path("samples.png"),
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    fast: Fast = None,
    set_values: SetValues = None,
    gpus: Gpus = None,
    processes: Processes = None,
) -> None:
    """Draw images from a trained model, with one sweep of its sampler.

    The same seed draws the same images on any number of GPUs or processes, which share the batches.

    Example: ebmkit sample runs/digits/model.safetensors --count 100 --out digits.png --seed 1
    """
    overrides = collect(set_values, extra)
    from ebmkit.device import choose_device
    from ebmkit.distributed.job import taking_part
    from ebmkit.image_files import open_output
    from ebmkit.model import load_model

    place, target, note = launch_workers(gpus, processes), console(), console(stderr=True)
    with taking_part(place, target.print) as world, open_output(out, count) if world.first else nullcontext() as write:
        loaded = load_model(model, choose_device(device, place), fast, partial(note.print, markup=False))
        with counting(target, "sampling", "gradient evaluations") as progress:
            for images in loaded.sample_batches(count, seed, batch_size, overrides, progress, world):
                if write is not None:
                    write(images)
    if world.first:
        target.print(f"{count} images: {out}", markup=False)


def evaluate(
    model: ModelFile,
    data: Annotated[str | None, typer.Option(help="Shards to compare with; the recipe's own by default.")] = None,
    count: Annotated[int, typer.Option(min=2, help="How many samples to draw.")] = 512,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    fast: Fast = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    gpus: Gpus = None,
    processes: Processes = None,
) -> None:
    """Print the pixel-space Fréchet distance between a model's samples and real images (lower is better; not FID).

    Example: ebmkit evaluate runs/digits/model.safetensors --count 512
    """
    from ebmkit.device import choose_device
    from ebmkit.distributed.job import taking_part
    from ebmkit.evaluation import evaluate_model
    from ebmkit.model import load_model

    place, target = launch_workers(gpus, processes), console()
    say = partial(console(stderr=True).print, markup=False)
    with taking_part(place, say) as world, counting(target, "sampling", "gradient evaluations") as progress:
        loaded = load_model(model, choose_device(device, place), fast, say)
        result = evaluate_model(loaded, data, count, seed, batch_size, progress, say, world)
    if result is None:
        return
    if as_json:
        typer.echo(json.dumps(result))
    else:
        target.print(
            f"pixel Fréchet distance {result['pixel_frechet_distance']:.3f} "
            f"({result['samples']} samples, seed {seed}, against {result['images']} images; not FID)"
        )


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(sample)
    app.command()(evaluate)
