"""`ebmkit sample` and `ebmkit evaluate`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ebmkit.cli.training import SetValues, collect
from ebmkit.console import console, counting

ModelFile = Annotated[Path, typer.Argument(help="A model.safetensors file.")]
Device = Annotated[str, typer.Option(help="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time; changes the images by rounding at most.")]
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
    set_values: SetValues = None,
) -> None:
    """Draw images from a trained model, with one sweep of its sampler.

    Example: ebmkit sample runs/digits/model.safetensors --count 100 --out digits.png --seed 1
    """
    overrides = collect(set_values, extra)
    from ebmkit.image_files import open_output
    from ebmkit.model import load_model

    target = console()
    with open_output(out, count) as write:
        loaded = load_model(model, device)
        with counting(target, "sampling", "gradient evaluations") as progress:
            for images in loaded.sample_batches(count, seed, batch_size, overrides, progress):
                write(images)
    target.print(f"{count} images: {out}", markup=False)


def evaluate(
    model: ModelFile,
    data: Annotated[str | None, typer.Option(help="Shards to compare with; the recipe's own by default.")] = None,
    count: Annotated[int, typer.Option(min=2, help="How many samples to draw.")] = 512,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the pixel-space Fréchet distance between a model's samples and real images (lower is better; not FID).

    Example: ebmkit evaluate runs/digits/model.safetensors --count 512
    """
    from ebmkit.evaluation import evaluate_model
    from ebmkit.model import load_model

    target = console()
    loaded = load_model(model, device)
    with counting(target, "sampling", "gradient evaluations") as progress:
        say = partial(console(stderr=True).print, markup=False)
        result = evaluate_model(loaded, data, count, seed, batch_size, progress, say)
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
