"""What `growth.py` measures: each series changes one size and leaves everything else as it is."""

from __future__ import annotations

import io
import math
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from small_runs import EMBEDDED, new_trainer

from ebmkit.data import open_images
from ebmkit.data.manifest import MANIFEST, Manifest, Shard
from ebmkit.data.patterns import expand
from ebmkit.data.roles import share
from ebmkit.data.tally import Tally
from ebmkit.data.tar_shard import read_shard
from ebmkit.interfaces import Context
from ebmkit.model import Model
from ebmkit.options import DataOptions

Work = Callable[[], Any]
SMALL = {**EMBEDDED, "energy.channels": 16, "buffer.size": 1024, "train.batch_size": 16, "train.threads": 1}
PER_SHARD = 16


@dataclass(frozen=True)
class Series:
    """A cost `prepare(size)` for each of `sizes`; the exponent is that of the points from number `fitted_from` on."""

    title: str
    unit: str
    sizes: tuple[int, ...]
    prepare: Callable[[int], AbstractContextManager[Work]]
    expected: float
    fitted_from: int = 0


@contextmanager
def training_step(option: str, size: int) -> Iterator[Work]:
    """A step of `digits` with a small network, `option` being `size`."""
    with new_trainer("digits", {**SMALL, option: size}) as trainer:
        yield trainer.train_step


def step_of_pixels(pixels: int) -> AbstractContextManager[Work]:
    """A step on square images."""
    return training_step("data.image_size", math.isqrt(pixels))


@contextmanager
def sampling(option: str, size: int) -> Iterator[Work]:
    """Drawing four images."""
    with new_trainer("digits", {**SMALL, option: size}) as trainer:
        model = Model(trainer.averaged, trainer.recipe, "cpu", {})
        yield partial(model.sample, 4)


@contextmanager
def buffer_use(size: int) -> Iterator[Work]:
    """One draw from the buffer, and putting the chains back."""
    with new_trainer("digits", {**SMALL, "buffer.size": size}) as trainer:
        buffer, random = trainer.buffer, torch.Generator().manual_seed(0)

        def work() -> None:
            drawn = buffer.draw(trainer.recipe.train.batch_size, random)
            buffer.store(drawn.slots, drawn.x)

        yield work


@contextmanager
def shard_start(size: int) -> Iterator[Work]:
    """From the pattern to the first batch: names, manifest, who reads what."""
    with many_shards(size) as options:

        def work() -> None:
            with open_stream(options) as source:
                source.next()

        yield work


@contextmanager
def shard_batch(size: int) -> Iterator[Work]:
    """Another batch, of images from several shards."""
    with many_shards(size) as options, open_stream(options) as source:
        yield source.next


def open_stream(options: DataOptions) -> Any:
    """Batches of 16 in this process."""
    return open_images(options, Context(options.shape, 1), 16, warn=lambda text: None)


@contextmanager
def many_shards(count: int) -> Iterator[DataOptions]:
    """`count` names for one real shard of 16 digits, and a manifest that lists them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = folder / "one.tar"
        write_shard(one)
        names = [f"train-{number:06d}.tar" for number in range(count)]
        for link in names:
            (folder / link).symlink_to(one.name)
        listed = tuple(Shard(link, PER_SHARD, one.stat().st_size, "0" * 64) for link in names)
        manifest = Manifest(count * PER_SHARD, (8, 8), 1, "digits", {}, listed)
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        pattern = f"{folder}/train-{{000000..{count - 1:06d}}}.tar"
        yield DataOptions(shards=pattern, image_size=8, channels=1, cache="off", workers=0, shuffle=64)


def write_shard(path: Path) -> None:
    """The first digits of the embedded set as a shard."""
    samples = read_shard(expand("digits")[0], Tally())
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for _, sample in zip(range(PER_SHARD), samples, strict=False):
            assert sample.image is not None
            info = tarfile.TarInfo(f"{sample.key}.png")
            info.size = len(sample.image)
            tar.addfile(info, io.BytesIO(sample.image))


@contextmanager
def expansion(size: int) -> Iterator[Work]:
    """From the pattern to the names of shards that are there."""
    with many_shards(size) as options:
        yield partial(expand, options.patterns)


@contextmanager
def pass_start(size: int) -> Iterator[Work]:
    """What one of eight roles reads in a pass."""
    yield partial(share, [f"shards/train-{number:06d}.tar" for number in range(size)], 0, 1, 3, 8)


STEP, SWEEP, SHARDS = "training step", "drawing 4 images", (1, 10, 100, 1_000, 3_000, 10_000)
SERIES = (
    Series(STEP, "T", (2, 8, 32, 128), partial(training_step, "time_steps"), 0),
    Series(SWEEP, "T", (2, 4, 8, 16, 32), partial(sampling, "time_steps"), 1, 1),
    Series(STEP, "K", (1, 4, 8, 16, 32), partial(training_step, "sampler.steps"), 1, 1),
    Series(SWEEP, "K", (1, 2, 4, 8, 16), partial(sampling, "sampler.steps"), 1, 1),
    Series(STEP, "pixels", tuple(side**2 for side in (8, 16, 32, 48, 64)), step_of_pixels, 1, 2),
    Series(STEP, "batch", (4, 16, 64, 256, 1024), partial(training_step, "train.batch_size"), 1, 2),
    Series(STEP, "buffer slots", (1_000, 4_000, 16_000, 64_000), partial(training_step, "buffer.size"), 0),
    Series("buffer: draw and store", "buffer slots", (1_000, 10_000, 100_000, 1_000_000), buffer_use, 1, 1),
    Series("names of shards", "shards", SHARDS, expansion, 1, 3),
    Series("first batch from shards", "shards", SHARDS, shard_start, 1, 3),
    Series("start of a pass", "shards", SHARDS, pass_start, 1, 3),
    Series("one more batch from shards", "shards", SHARDS, shard_batch, 0, 1),
)
