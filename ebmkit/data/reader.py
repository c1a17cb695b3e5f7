"""What all readers of shards share: where the shards are, and how a raw sample becomes an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from ebmkit.data.decode import Decoder, WrongSize
from ebmkit.data.framing import CorruptImage
from ebmkit.data.manifest import known_counts
from ebmkit.data.patterns import expand
from ebmkit.data.remote.access import GIB, Access
from ebmkit.data.remote.folder import CacheFolder
from ebmkit.data.schemes import is_local
from ebmkit.data.tally import Tally
from ebmkit.data.tar_shard import Raw, read_shard
from ebmkit.errors import BadData
from ebmkit.options import DataOptions


@dataclass(frozen=True)
class ShardSet:
    """Shards, the counts that their manifest states, and how to fetch and decode them. Picklable, for the workers."""

    shards: tuple[str, ...]
    expected: dict[str, int]
    decoder: Decoder
    access: Access

    @classmethod
    def of(cls, options: DataOptions) -> ShardSet:
        """The shards that the recipe names; `BadData` where one is missing."""
        shards = expand(options.patterns, options.make)
        access = Access(options.retries, options.retry_delay, options.timeout)
        if options.cache_dir is not None and not all(map(is_local, shards)):
            folder = CacheFolder.prepared(options.cache_dir, int(options.cache_dir_limit * GIB))
            access = replace(access, cache=folder)
        return cls(tuple(shards), known_counts(shards), Decoder(options.shape, options.wrong_size), access)

    @property
    def total(self) -> int | None:
        """The number of images, where manifests state it for every shard."""
        return sum(self.expected.values()) if len(self.expected) == len(self.shards) else None

    def read(self, shard: str, tally: Tally) -> Iterator[Raw]:
        """The samples of one of the shards; `DataError` where it is remote and cannot be had."""
        return read_shard(shard, tally, self.expected.get(shard), self.access)

    def image(self, raw: Raw, tally: Tally) -> Tensor | None:
        """`[C, H, W]` uint8, or None for a sample that cannot be used, which `tally` then knows."""
        if raw.image is None:
            tally.sample(raw.shard, raw.key, raw.trouble)
            return None
        try:
            return self.decoder(raw.image)
        except CorruptImage as error:
            tally.sample(raw.shard, raw.key, str(error))
            return None
        except WrongSize as error:
            height, width = error.size
            _, right_height, right_width = self.decoder.shape
            raise BadData(
                f"shard {raw.shard}, sample {raw.key} is {width}x{height} (width x height), the recipe says "
                f'{right_width}x{right_height}; set data.wrong_size = "resize", or make shards of that size with '
                "`ebmkit make-shards`"
            ) from error
