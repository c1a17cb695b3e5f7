"""The named parts of a training step, for whoever measures how long each takes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

SECTIONS = ("data", "langevin", "objective", "penalty", "backward", "optimizer")
"""In the order of a step: waiting for images, the chains, the loss, its penalties, the update and the average."""


class Sections(Protocol):
    """Learns when a training step enters and leaves one of `SECTIONS`."""

    def of(self, name: str) -> AbstractContextManager[None]:
        """A context around the section `name`; they do not nest, and one may come several times in a step."""


class Unwatched:
    """Nobody measures: each section costs a fraction of a microsecond."""

    _nothing = nullcontext()

    def of(self, name: str) -> AbstractContextManager[None]:
        """Does nothing."""
        return self._nothing
