"""Run folders for the tests of reports: trained ones, and some that nobody would train."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from PIL import Image
from safetensors.numpy import save_file

from run_helpers import new_trainer, tiny_recipe, tiny_table, write_shards

HOSTILE = "</script><script>document.title='broken in'</script><img src=x onerror=alert(1)>"
"""A text that breaks into a page which does not escape it."""


def train_runs(folder: Path) -> list[Path]:
    """Two runs of 6 steps, `one` and `two`, with a row of metrics each step; the second draws more samples."""
    shards = write_shards(folder / "shards")
    settings = {"one": {"train__sample_every": 3}, "two": {"train__sample_every": 2, "seed": 9}}
    for name, values in settings.items():
        new_trainer(folder / name, tiny_recipe(shards, **values)).train()
    return [folder / name for name in settings]


def write_run(
    folder: Path,
    rows: Iterable[Mapping[str, Any]] = (),
    samples: Iterable[int] = (),
    table: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    side: int = 16,
) -> Path:
    """A run folder with this content, grids of noise of `side` pixels, and no training."""
    (folder / "samples").mkdir(parents=True)
    (folder / "recipe.toml").write_text(tomli_w.dumps(table or tiny_table("digits")), encoding="utf-8")
    write_lines(folder / "metrics.jsonl", rows)
    for step in samples:
        write_picture(folder / "samples" / f"step-{step:09d}.png", step, side)
    if metadata is not None:
        save_file({"w": np.zeros(2, np.float32)}, folder / "model.safetensors", dict(metadata))
    return folder


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_picture(path: Path, seed: int, side: int = 16) -> None:
    """A PNG file of noise."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def hostile_run(folder: Path) -> Path:
    """A run whose every text, names of files included, tries to break out of the page."""
    table = tiny_table("digits") | {HOSTILE: HOSTILE, "odd": {"deep": [HOSTILE]}}
    row = {"step": 1, "loss": 1.0, HOSTILE: 2.0, "wgan_lp/penalty": float("nan")}
    # A file's name cannot hold a slash.
    flat = HOSTILE.replace("/", "")
    run = write_run(
        folder / flat,
        [row, row | {"step": 2}],
        [1, 2],
        table,
        {"name": HOSTILE, "ebmkit": HOSTILE, "plugins": json.dumps({HOSTILE: HOSTILE})},
    )
    write_picture(run / "plots" / f"{flat}.png", 0)
    evaluation = {"step": HOSTILE, "data": HOSTILE, "extractor": HOSTILE, "time": HOSTILE, "seed": HOSTILE}
    write_lines(run / "evaluations.jsonl", [evaluation | {"metrics": {HOSTILE: HOSTILE, "fid": 3.5}}])
    return run
