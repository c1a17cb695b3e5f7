"""What all readers of shards share: where the shards are, and how a raw sample becomes an image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ebmkit.data.decode import Decoder, WrongSize
from ebmkit.data.framing import CorruptImage
from ebmkit.data.manifest import known_counts
from ebmkit.data.patterns import expand
from ebmkit.data.tally import Tally
from ebmkit.data.tar_shard import Raw
from ebmkit.errors import BadData
from ebmkit.options import DataOptions


@dataclass(frozen=True)
class ShardSet:
    """Shards, the counts that their manifest states, and how to decode them. Picklable, for the workers."""

    shards: tuple[str, ...]
    expected: dict[str, int]
    decoder: Decoder

    @classmethod
    def of(cls, options: DataOptions) -> ShardSet:
        """The shards that the recipe names; `BadData` where one is missing."""
        shards = expand(options.patterns, options.make)
        return cls(tuple(shards), known_counts(shards), Decoder(options.shape, options.wrong_size))

    @property
    def total(self) -> int | None:
        """The number of images, where manifests state it for every shard."""
        return sum(self.expected.values()) if len(self.expected) == len(self.shards) else None

    def image(self, raw: Raw, tally: Tally) -> Tensor | None:
        """`[C, H, W]` uint8, or None for a sample that cannot be used, which `tally` then knows."""
        if raw.image is None:
            tally.sample(raw.shard, raw.key, "has no image")
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
