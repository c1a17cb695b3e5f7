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
from ebmkit.errors import BadInput


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
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="KEY=VALUE")] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between: pixel_frechet_distance, fid, inception_score, kid, precision, recall; "
            "with --extractor also frechet_distance; of pixels pixel_std_ratio, neighbour_difference_ratio, "
            "spectrum_distance, nearest_image_ratio."
        ),
    ] = None,
    extractor: Annotated[
        str | None, typer.Option(help="Compare features of this feature extractor; metrics are named after it.")
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(help="A file of the weights that fid and others need, instead of fetching it; may be repeated."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=2, help="How many samples to draw; 512 for pixels, 50,000 for features of a network."),
    ] = None,
    seed: Seed = 0,
    floor: Annotated[
        bool, typer.Option("--floor", help="Also what as many real images have against the other ones.")
    ] = False,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    fast: Fast = None,
    set_values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set an option of the sampler or the extractor: extractor.size=224."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    gpus: Gpus = None,
    processes: Processes = None,
) -> None:
    """Compare a model's samples with real images: by default the Fréchet distance of pixels, which is not FID.

    fid, inception_score, kid, precision and recall need the package torch-fidelity: pip install 'ebmkit[metrics]'

    Example: ebmkit evaluate runs/digits/model.safetensors --count 512
    """
    from ebmkit.metrics.names import PIXELS, choose

    names, given = (metrics or "").split(",") if metrics else [], collect(set_values, extra)
    overrides, options = _parts_of(given, extractor)
    # Before torch is imported and the other processes are started.
    choose(names, extractor)
    from ebmkit.allocator import keep_freed_memory
    from ebmkit.device import choose_device
    from ebmkit.distributed.job import taking_part
    from ebmkit.evaluation import evaluate_model
    from ebmkit.model import load_model

    keep_freed_memory()
    place, target = launch_workers(gpus, processes), console()
    say = partial(console(stderr=True).print, markup=False)
    with taking_part(place, say) as world:
        result = evaluate_model(
            load_model(model, choose_device(device, place), fast, say),
            data,
            count,
            seed,
            batch_size,
            metrics=names,
            extractor=extractor,
            extractor_options=options,
            weights=weights or (),
            floor=floor,
            overrides=overrides,
            counting=partial(counting, target),
            say=say,
            world=world,
        )
    if result is None:
        return
    if as_json:
        typer.echo(json.dumps(result))
        return
    changed = "".join(f", {key}={value}" for key, value in overrides.items())
    of = f"({result['samples']} samples, seed {seed}{changed}, against {result['images']} images"
    floors = result.pop("floor", {})
    for name, value in result.items():
        if name == "samples":
            # All that follows is not measured.
            break
        beside = f"; floor {floors[name]:.5g}" if name in floors else ""
        if name == PIXELS:
            target.print(f"pixel Fréchet distance {value:.3f} {of}{beside}; not FID)", markup=False)
        else:
            target.print(f"{name} {value:.5g} {of}{beside})", markup=False)


def _parts_of(given: dict[str, object], extractor: str | None) -> tuple[dict[str, object], dict[str, object]]:
    """The options of the sampler, with its name before them, and those of the feature extractor, without."""
    sampler = {key: value for key, value in given.items() if key.startswith("sampler.")}
    network = {key: value for key, value in given.items() if key.startswith("extractor.") and extractor is not None}
    for key in (key for key in given if key not in sampler and key not in network):
        raise BadInput(
            f"--set {key}: `ebmkit evaluate` takes options of the sampler, sampler.KEY=VALUE, and of its --extractor, "
            "extractor.KEY=VALUE"
        )
    return sampler, {key.removeprefix("extractor."): value for key, value in network.items()}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(sample)
    app.command()(evaluate)
