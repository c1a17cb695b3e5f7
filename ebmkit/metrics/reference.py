"""Features of real images: computed once, by all processes together, and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ebmkit.data.cached import chunks_of
from ebmkit.data.embedded import cache_folder
from ebmkit.data.reader import ShardSet
from ebmkit.data.schemes import is_local
from ebmkit.distributed.world import World
from ebmkit.metrics.networks import Features, Network
from ebmkit.options import DataOptions
from ebmkit.sampling import from_uint8
from ebmkit.state_file import write_tensors

FORMAT = "1"
"""To be raised whenever the same key would have to give other features."""
KEY = "features"


def real_features(
    options: DataOptions,
    networks: Sequence[Network],
    names: Sequence[str],
    batch_size: int,
    world: World,
    progress: Callable[[int, int | None], None],
    say: Callable[[str], None],
) -> Features | None:
    """The features of these names of all images of the shards, in their order, on rank 0; None elsewhere.

    What is kept of the same shards, image shape and network is read; the rest is computed, each process its part.
    Raises `DataError` where the data cannot be used.
    """
    shard_set = ShardSet.of(options)
    files = {name: _file(shard_set, network, name) for network in networks for name in network.names if name in names}
    found = {name: kept for name, file in files.items() if (kept := _read(file)) is not None} if world.first else {}
    missing = world.broadcast([name for name in names if name not in found])
    if not missing:
        return found if world.first else None
    parts: list[tuple[tuple[int, int], Features]] = []
    done = 0
    workers = 0 if len(shard_set.shards) == 1 else min(options.workers, len(shard_set.shards))
    needed = [network for network in networks if set(network.names) & set(missing)]
    for chunk in chunks_of(shard_set, workers, (lambda text: say(f"warning: {text}")) if world.first else _silent):
        done += len(chunk.labels)
        progress(done, shard_set.total)
        if len(chunk.labels) and sum(chunk.order) % world.size == world.rank:
            batches = [_features(needed, missing, images) for images in torch.split(chunk.images, batch_size)]
            parts.append((chunk.order, {name: torch.cat([batch[name] for batch in batches]) for name in missing}))
    gathered = world.gather(parts)
    if gathered is None:
        return None
    ordered = sorted((part for rank in gathered for part in rank), key=lambda part: part[0])
    for name in missing:
        found[name] = torch.cat([features[name] for _, features in ordered])
        _write(files[name], found[name], say)
    return found


def _features(networks: Sequence[Network], names: Sequence[str], images: Tensor) -> Features:
    computed: Features = {}
    for network in networks:
        computed |= network.compute(from_uint8(images))
    return {name: computed[name] for name in names}


def _silent(text: str) -> None:
    pass


def _file(shard_set: ShardSet, network: Network, name: str) -> Path | None:
    """Where the features are kept; None where nobody could tell whether the shards have changed since."""
    if network.identity is None or not all(map(is_local, shard_set.shards)):
        return None
    status = [(Path(shard).name, Path(shard).stat()) for shard in shard_set.shards]
    shards = [(shard, found.st_size, found.st_mtime_ns) for shard, found in status]
    key = json.dumps([FORMAT, shards, shard_set.decoder.shape, shard_set.decoder.wrong_size, network.identity, name])
    label = re.sub(r"[^a-z0-9]+", "-", f"{network.label} {name}".lower()).strip("-")
    return cache_folder() / "features" / f"{label}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"


def _read(file: Path | None) -> Tensor | None:
    if file is None or not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt", device="cpu") as kept:
            features: Tensor = kept.get_tensor(KEY)
            return features
    except (SafetensorError, OSError):
        # Written anew.
        return None


def _write(file: Path | None, features: Tensor, say: Callable[[str], None]) -> None:
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(file, {KEY: features.contiguous()})
    except OSError as error:
        say(f"warning: {file}: cannot be written ({error.strerror}), so that the features will be computed again")
