"""`make_shards`: from a source of images to shards with a manifest."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ebmkit.data.framing import MAX_SIDE
from ebmkit.data.making.encoding import encode_all
from ebmkit.data.making.framed import Format, Framing
from ebmkit.data.making.sources import Source, open_source
from ebmkit.data.making.writing import ShardWriter
from ebmkit.data.manifest import Manifest, Skipped
from ebmkit.errors import BadInput


def make_shards(
    source: str | Path,
    out: str | Path,
    *,
    image_size: int | tuple[int, int] | None,
    crop: int | None = None,
    channels: int = 3,
    format: Format = "png",
    quality: int = 95,
    shard_size: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    limit: int | None = None,
    root: str | Path | None = None,
    split: str = "train",
    prefix: str | None = None,
    download: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> Manifest:
    """Write the images of `source` as shards `PREFIX-000000.tar` ... and a `manifest.json` to the folder `out`.

    `source` is a folder of images, a zip or tar file of images, `digits`, or a data set of torchvision with its `root`.
    Images are cropped to the centre (to `crop` pixels, then to the aspect ratio of `image_size`), resized with
    antialiasing to `image_size` (a side, or `(height, width)`; None keeps their size) and converted to `channels`
    (1 or 3). Their order is a permutation by `seed`. The shards do not depend on `workers` (None: one per CPU, at
    most 8). Unreadable images are skipped and listed in the returned manifest. `prefix` is `split` by default.

    `BadInput` where the source or an option cannot be used, or where `out` already holds shards.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    prefix = split if prefix is None else prefix
    options: dict[str, Any] = {
        "image_size": list(size) if size else None,
        "crop": crop,
        "channels": channels,
        "format": format,
        "quality": quality,
        "shard_size": shard_size,
        "seed": seed,
        "limit": limit,
        "split": split,
        "prefix": prefix,
    }
    _check(options, workers)
    if workers is None:
        workers = min(8, os.cpu_count() or 1)
    images = open_source(source, root=root, split=split, download=download)
    try:
        writer = ShardWriter(Path(out).expanduser(), prefix, shard_size)
        framing = Framing(size, crop, channels, format, quality)
        try:
            skipped, sizes = _write(images, framing, writer, seed=seed, workers=workers, limit=limit, progress=progress)
            if writer.count == 0:
                raise BadInput(
                    f"none of the {len(images)} images of {source} can be used; the first: "
                    f"{skipped[0].name} {skipped[0].reason}"
                )
            writer.finish()
            manifest = Manifest(
                count=writer.count,
                image_size=sizes.pop() if len(sizes) == 1 else None,
                channels=channels,
                source=str(source),
                options=options,
                shards=tuple(writer.shards),
                classes=images.classes,
                skipped=tuple(skipped),
                ebmkit=_version(),
            )
            writer.write_manifest(manifest)
        except OSError as error:
            raise BadInput(f"cannot write shards to {out}: {error.strerror or error}") from error
        finally:
            writer.abandon()
    finally:
        images.close()
    return manifest


def _write(
    images: Source,
    framing: Framing,
    writer: ShardWriter,
    *,
    seed: int,
    workers: int,
    limit: int | None,
    progress: Callable[[int, int | None], None] | None,
) -> tuple[list[Skipped], set[tuple[int, int]]]:
    """Write all shards, still hidden; what was skipped, and the sizes `(height, width)` of what was not."""
    order = list(range(len(images)))
    random.Random(seed).shuffle(order)
    total = len(order) if limit is None else min(limit, len(order))
    skipped: list[Skipped] = []
    sizes: set[tuple[int, int]] = set()
    for encoded in encode_all(images, framing, order, workers):
        if encoded.trouble is not None:
            skipped.append(Skipped(images.name(encoded.number), encoded.trouble))
        else:
            writer.add(encoded.data, framing.format, encoded.label)
            sizes.add(encoded.size)
        if progress:
            progress(writer.count, total)
        if writer.count == limit:
            break
    return skipped, sizes


def _check(options: dict[str, Any], workers: int | None) -> None:
    """All that is wrong with the options, at once."""
    size = options["image_size"]
    problems = [
        (size is None or all(0 < side <= MAX_SIDE for side in size), f"image_size must be 1 to {MAX_SIDE} pixels"),
        (options["crop"] is None or options["crop"] > 0, "crop must be at least 1 pixel"),
        (options["channels"] in (1, 3), "channels must be 1 (grey) or 3 (RGB)"),
        (options["format"] in ("png", "jpg", "webp"), "format must be png, jpg or webp"),
        (1 <= options["quality"] <= 100, "quality must be 1 to 100"),
        (options["shard_size"] > 0, "shard_size must be at least 1 image"),
        (options["limit"] is None or options["limit"] > 0, "limit must be at least 1 image"),
        (workers is None or workers >= 0, "workers must not be negative"),
        (
            options["prefix"] and options["prefix"] == os.path.basename(options["prefix"]),
            "prefix must be a plain name, without a folder",
        ),
    ]
    wrong = [text for right, text in problems if not right]
    if wrong:
        raise BadInput("make-shards: " + "; ".join(wrong))


def _version() -> str:
    from ebmkit import __version__

    return __version__
