"""The two ways in: batches for training, and the whole set for evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ebmkit.data.cached import CachedImages, decode_all
from ebmkit.data.reader import ShardSet
from ebmkit.data.source import ImageSource, Progress, Warn
from ebmkit.data.stream import ShardStream
from ebmkit.interfaces import Context
from ebmkit.options import DataOptions

GIB = 2**30


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def open_images(
    options: DataOptions,
    context: Context,
    batch_size: int,
    state: Mapping[str, Any] | None = None,
    warn: Warn = _warn,
    progress: Progress | None = None,
) -> ImageSource:
    """Endless batches of `batch_size` images for this rank, from where `state` (of `state_dict`) was taken.

    With `cache = "device"` the set is decoded now, and streamed after all if it is larger than `cache_limit`. A `state`
    continues exactly unless the shards, the seed, `shuffle`, or, when streaming, the number of workers or ranks are
    different: then the next pass begins, with a warning.
    """
    shard_set = ShardSet.of(options)
    if options.cache == "device":
        decoded = decode_all(
            shard_set,
            workers=options.workers,
            warn=warn,
            device=context.device,
            budget=options.cache_limit * GIB,
            progress=progress,
        )
        if decoded is not None:
            return CachedImages(decoded, shard_set.shards, context, batch_size, state, warn)
        warn(
            f"the data set needs more than data.cache_limit = {options.cache_limit:g} GiB when decoded: it is streamed "
            'from its shards; raise the limit, or set data.cache = "off" to say so'
        )
    return ShardStream(
        shard_set,
        context,
        batch_size,
        workers=options.workers,
        shuffle=options.shuffle,
        state=state,
        warn=warn,
    )


def all_images(
    options: DataOptions, limit: int | None = None, warn: Warn = _warn, progress: Progress | None = None
) -> Tensor:
    """The images `[N, C, H, W]`, uint8 on the CPU, in the order of the shards; the first `limit` if given."""
    decoded = decode_all(ShardSet.of(options), workers=options.workers, warn=warn, limit=limit, progress=progress)
    assert decoded is not None  # there is no budget
    return decoded.images
