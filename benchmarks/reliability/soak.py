"""A tiny model that trains for as long as is wanted, and what the process holds meanwhile.

Promised: after a warm-up (the first quarter) resident memory and open files stay flat, and the run folder holds nothing
more than the kept checkpoints, one model, metrics and sample grids.

`count` is in minutes: 10 for the page, hours to be sure. Everything that a long run does is done often: shards are
streamed by a worker process, and checkpoints, sample grids, metrics and trackers are written.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .helpers import environment, tiny_table, write_recipe, write_shards

EVERY = 2.0
"""Seconds between two looks."""
MOST_MEGABYTES, MOST_FILES = 16.0, 4
"""What the last quarter may hold above the second one: less than any leak that would end a run of a week."""


def campaign(count: float, folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Train for `count` minutes."""
    shards = write_shards(folder / "shards", shards=4, per_shard=60)
    table = tiny_table(
        shards,
        data__cache="off",
        data__workers=1,
        trackers=[{"use": "csv"}, {"use": "tensorboard"}],
        train__steps=10**9,
        train__checkpoint_every=20,
        train__sample_every=20,
        train__log_every=5,
    )
    recipe, run = write_recipe(folder / "soak.toml", table), folder / "run"
    command = [sys.executable, "-m", "ebmkit", "train", str(recipe), "--run-dir", str(run)]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=said, stderr=said)
    rows: list[dict[str, float]] = []
    begin = time.monotonic()
    try:
        while time.monotonic() - begin < count * 60 and process.poll() is None:
            time.sleep(EVERY)
            if (run / "checkpoints").is_dir() and any((run / "checkpoints").iterdir()):
                rows.append({"seconds": time.monotonic() - begin, **_held(process.pid), **_folder(run)})
                if len(rows) % 30 == 1:
                    progress(f"{rows[-1]['seconds']:.0f} s: {rows[-1]['megabytes']:.0f} MB resident")
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(120)
    failures = [] if code in (0, 75) else [f"ended with {code}: {(folder / 'said').read_text()[-500:]}"]
    if len(rows) < 12:
        return {"minutes": count, "failures": [*failures, f"only {len(rows)} looks in {count} minutes"]}
    steps = [int(line.split(",", 1)[0]) for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    quarter = len(rows) // 4
    second, last = rows[quarter : 2 * quarter], rows[-quarter:]
    found: dict[str, Any] = {"minutes": count, "steps": max(steps), "checkpoints": max(steps) // 20}
    for name, most in (("megabytes", MOST_MEGABYTES), ("files", MOST_FILES), ("kept_megabytes", 1.0)):
        before, after = (statistics.median(row[name] for row in part) for part in (second, last))
        found[name] = {
            "second_quarter": round(before, 2),
            "last_quarter": round(after, 2),
            "slope_per_hour": round(3600 * _slope(rows[quarter:], name), 3),
        }
        if after - before > most:
            failures.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return {**found, "failures": failures}


def _held(pid: int) -> dict[str, float]:
    """Of the training process and the workers that it started: resident memory and open files."""
    pids = [pid, *_children(pid)]
    kilobytes, files = 0, 0
    for each in pids:
        try:
            status = Path(f"/proc/{each}/status").read_text()
            kilobytes += int(status.partition("VmRSS:")[2].split()[0])
            files += len(os.listdir(f"/proc/{each}/fd"))
        except (OSError, IndexError):
            continue
    return {"megabytes": kilobytes / 1024, "files": files}


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _folder(run: Path) -> dict[str, float]:
    """What a run keeps, beside what grows on purpose: metrics, their tables, and sample grids."""
    grows = {"samples", "tensorboard", "metrics.jsonl", "metrics.csv"}
    size = 0
    # Files come and go meanwhile; os.walk passes over folders that are gone.
    for folder, folders, names in os.walk(run):
        if Path(folder) == run:
            folders[:], names = [name for name in folders if name not in grows], [n for n in names if n not in grows]
        for name in names:
            with suppress(OSError):
                size += os.stat(os.path.join(folder, name)).st_size
    return {"kept_megabytes": size / 1e6}


def _slope(rows: Sequence[dict[str, float]], name: str) -> float:
    """Units a second, by least squares."""
    return statistics.linear_regression([row["seconds"] for row in rows], [row[name] for row in rows]).slope
