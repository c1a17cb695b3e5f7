"""What the benchmarks share that train in this process: a trainer in a run folder that is thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ebmkit
from ebmkit.console import Silent
from ebmkit.run_folder import RunFolder
from ebmkit.trainer import Trainer

EMBEDDED: Mapping[str, Any] = {"data.shards": "digits", "data.wrong_size": "resize", "data.workers": 0}
"""The embedded digits, resized to what the recipe wants: real images of any size without a download."""


@contextmanager
def new_trainer(recipe: str, changes: Mapping[str, Any], device: str = "cpu") -> Iterator[Trainer]:
    """A trainer at its first step."""
    bound = ebmkit.check(recipe, changes, warn=lambda message: None)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        run.create(bound.to_toml())
        trainer = Trainer(bound, run, device, Silent())
        trainer.model.train()
        with trainer.data:
            yield trainer
