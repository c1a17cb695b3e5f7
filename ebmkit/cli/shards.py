"""`ebmkit make-shards`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ebmkit.console import console, counting


def make_shards(
    source: Annotated[
        str,
        typer.Argument(
            help="An image folder (nested), a .zip, .tar or .tar.gz of images, a torchvision data set by name "
            "(CIFAR10, CelebA, LSUN:church_outdoor, ...), or 'digits'."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="A new folder for the shards and their manifest.json.")],
    size: Annotated[int | None, typer.Option(min=1, help="Resize to this many pixels square; by default keep.")] = None,
    crop: Annotated[int | None, typer.Option(min=1, help="Centre crop of this many pixels before the resize.")] = None,
    channels: Annotated[int, typer.Option(help="3 for RGB, 1 for grey.")] = 3,
    image_format: Annotated[
        Literal["png", "jpg", "webp"], typer.Option("--format", help="png is lossless; jpg and webp are smaller.")
    ] = "png",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of jpg and webp.")] = 95,
    shard_size: Annotated[int, typer.Option(min=1, help="Images in a shard.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the images.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as cores by default.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only this many images.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where a torchvision data set's files lie.")] = None,
    split: Annotated[str, typer.Option(help="Which part of a torchvision data set.")] = "train",
    download: Annotated[bool, typer.Option("--download", help="Let torchvision download the data set.")] = False,
) -> None:
    """Make WebDataset shards from images: centre crop, resize, shuffle, and a manifest with counts and checksums.

    The same source, options and seed make the same bytes. Unreadable images are skipped, counted and listed.

    Example: ebmkit make-shards img_align_celeba.zip shards/celeba64 --crop 140 --size 64
    """
    from ebmkit.data import make_shards

    target = console()
    with counting(target, "making shards", "images") as progress:
        manifest = make_shards(
            source,
            out,
            image_size=size,
            crop=crop,
            channels=channels,
            format=image_format,
            quality=quality,
            shard_size=shard_size,
            seed=seed,
            workers=workers,
            limit=limit,
            root=root,
            split=split,
            download=download,
            progress=progress,
        )
    shards = f"{len(manifest.shards)} shard{'s' if len(manifest.shards) != 1 else ''}"
    target.print(f"{manifest.count} images in {shards}: {out}", markup=False)
    if manifest.skipped:
        shown = [f"  {item.name}: {item.reason}" for item in manifest.skipped[:5]]
        more = len(manifest.skipped) - len(shown)
        shown += [f"  and {more} more"] if more > 0 else []
        target.print(
            f"unreadable and skipped: {len(manifest.skipped)} (listed in {out / 'manifest.json'}):",
            markup=False,
        )
        target.print("\n".join(shown), markup=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("make-shards")(make_shards)
