"""Kills at any moment: `kill -9` to a training process and everything that it started.

Promised: the run resumes, never from before the last checkpoint that was complete, and ends as an undisturbed one does:
weights, moving average, optimizer, buffer, position in the data and metrics are equal bit for bit, and nothing that was
unfinished is left. Each try is a process that runs the command line `ebmkit train`; it is forked from one that has
imported torch, which saves seconds.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

from ebmkit import checkpoint
from ebmkit.run_folder import RunFolder

from .helpers import Command, Progress, differs, leftovers, tiny_table, train, wait_until, write_recipe, write_shards

MOMENTS = ("checkpoint", "checkpoint", "model", "removal", "any", "start")
"""When to kill, in turn: while these are written or removed, at any moment, or while the process starts."""
SIGNS = {"checkpoint": "checkpoints/.step-*", "model": ".model-*", "removal": "checkpoints/.old-*"}
PER_KILL = 3
"""Steps for each kill, so that they meet a run that is not over."""


def campaign(count: int, folder: Path, progress: Progress) -> dict[str, Any]:
    """Kill one run `count` times; each time it is resumed."""
    began, moments, failures = time.monotonic(), random.Random(0), list[str]()
    steps = PER_KILL * count + 10
    changes = {"train__checkpoint_every": 1, "train__keep_checkpoints": 1, "train__steps": steps}
    shards = write_shards(folder / "shards", shards=4, per_shard=11)
    write_recipe(folder / "recipe.toml", tiny_table(shards, **changes))
    whole, run = folder / "whole", folder / "run"
    undisturbed = train("recipe.toml", "--run-dir", whole, "--set", "train.checkpoint_every=100000", cwd=folder)
    if undisturbed.code:
        return {"failures": [f"the undisturbed run: {undisturbed.err}"]}
    progress(f"undisturbed: {steps} steps in {time.monotonic() - began:.0f} s")

    kills, during = 0, dict.fromkeys(("checkpoint", "model", "removal", "nothing"), 0)
    command = Command("train", "recipe.toml", "--run-dir", run, cwd=folder)
    wait_until(lambda: bool(RunFolder(run).complete_checkpoints()), 300)
    while kills < count:
        moment = MOMENTS[kills % len(MOMENTS)]
        _wait_for(moment, run, moments)
        before = checkpoint.newest(RunFolder(run)) or 0
        command.kill(signal.SIGKILL, group=True)
        ended = command.wait()
        if ended.code != -signal.SIGKILL:
            failures.append(f"kill {kills + 1}: the run had ended before, with {ended.code}: {ended.err}")
            return {"kills": kills, "failures": failures}
        kills += 1
        hit = [name for name, sign in SIGNS.items() if any(run.glob(sign))]
        for name in hit or ["nothing"]:
            during[name] += 1
        found = checkpoint.newest(RunFolder(run)) or 0
        if found < before:
            failures.append(f"kill {kills}: the checkpoint of step {before} was there before it, step {found} after it")
        checkpoint.load(RunFolder(run), found)
        progress(f"kill {kills} of {count}, at step {found}: {', '.join(hit) or 'nothing'} unfinished")
        command = Command("train", "recipe.toml", "--run-dir", run, "--resume", cwd=folder)
    ended = command.wait()
    if ended.code:
        failures.append(f"the last resume: {ended.err}")
    else:
        failures += [f"differs from the undisturbed run: {name}" for name in differs(run, whole)]
        failures += [f"left: {name}" for name in leftovers(run)]
    seconds = round(time.monotonic() - began, 1)
    return {"kills": kills, "unfinished": during, "steps": steps, "seconds": seconds, "failures": failures}


def _wait_for(moment: str, run: Path, moments: random.Random) -> None:
    """Return when it is time to kill; within a minute at the latest, for the run may be over."""
    if moment == "start":
        time.sleep(moments.uniform(0.0, 0.3))
        return
    newest = checkpoint.newest(RunFolder(run)) or 0
    end = time.monotonic() + 60
    while (checkpoint.newest(RunFolder(run)) or 0) <= newest and time.monotonic() < end:
        time.sleep(0.001)
    if moment == "any":
        time.sleep(moments.uniform(0.0, 0.08))
        return
    while not any(run.glob(SIGNS[moment])) and time.monotonic() < end:
        pass
    if moment == "checkpoint" and moments.random() < 0.5:
        time.sleep(moments.uniform(0.0, 0.01))
