"""What training needs of whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class View(Protocol):
    """Who watches a training run: the live view of the command line, or nobody."""

    def begin(self, first: int, steps: int) -> None:
        """Training goes from step `first` to `steps`."""

    def step(self, step: int) -> None:
        """A step is done."""

    def metrics(self, row: Mapping[str, float]) -> None:
        """A line of metrics.jsonl."""

    def say(self, message: str) -> None:
        """Something that a person should know."""

    def loading(self, done: int, total: int | None) -> None:
        """Images decoded into the cache, of how many."""
