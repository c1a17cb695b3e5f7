"""What training needs of the data: batches without end, and the exact position to go on from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

from torch import Tensor

Warn: TypeAlias = Callable[[str], None]
"""Takes one sentence that the user should see."""

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the number of images done, and their total where it is known."""

NEXT_PASS = (
    "the data goes on with its next pass, not where it stopped: the shards, the seed, data.workers, data.shuffle, "
    "data.cache or the number of processes are not those of the saved run"
)
"""The warning where a saved position does not fit."""


class Batch(NamedTuple):
    """`images[B, C, H, W]` uint8 and `labels[B]` int64 (-1 where the shards have no `.cls`), on one device."""

    images: Tensor
    labels: Tensor


class ImageSource(ABC):
    """Endless batches in an order that follows from the seed. Also a context manager that closes itself."""

    skipped: int = 0
    """Unusable samples met so far, counted again in every pass."""
    whole: ClassVar[bool] = False
    """Whether every rank reads all images, so that `skipped` counts those of the whole job."""

    @abstractmethod
    def next(self) -> Batch:
        """The next batch of this rank; `DataError` where the data cannot be used."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch that `next` gave, as plain JSON values; prefetched batches don't count."""

    @abstractmethod
    def go_to(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a position that `state_dict` gave; None is the beginning. No shard is listed or decoded again."""

    def close(self) -> None:
        """End the worker processes, if there are any. May be called twice."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
