"""Runs that are made to diverge, and healthy ones: what the watchdog does, and how good the models are in the end.

Promised: of runs whose learning rate is 100 times too large, whose penalty is missing, whose buffer is poisoned, whose
shards hold an image of NaN, or whose plugins give NaN, at least 9 in 10 end with a model as good as an undisturbed one
(the bound that the test of the digits recipe has), and the others with a diagnosis. Healthy runs raise no alarm.

Every run is `ebmkit train digits` as it ships, in a process of its own, and is measured by `ebmkit evaluate`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ebmkit.data.embedded import digits_shards
from ebmkit.json_lines import append_line, read_lines
from ebmkit.watchdog.journal import ROLLBACK, SKIP, read_journal

BOUND = 1.5
"""As in tests/test_digits.py."""
PLUGIN = '''
import os

import torch
from ebmkit import Regularizer, Term, hookimpl
from ebmkit_buffers.cyclic import Cyclic
from ebmkit_langevin.sampler import Langevin

PLUGIN_API = 1


class NotANumber(Regularizer):
    """A penalty that is NaN at one step in twenty."""

    name = "not_a_number"

    def penalty(self, pairs, generator):
        draw = torch.rand((), generator=generator, device=pairs.x_pos.device)
        value = torch.where(draw < 0.05, torch.nan, 0.0) * pairs.energies[0].mean()
        return Term(value, {"penalty": value.detach()})


class Strays(Langevin):
    """A sampler that loses one chain in a hundred, while training: an image that it loses cannot be measured."""

    name = "strays"

    def refine(self, energy, x, t, noise):
        x = super().refine(energy, x, t, noise)
        lost = noise.uniform_like(x[:, :1, :1, :1]) < float(os.environ.get("EBMKIT_STRAYS", "0"))
        return torch.where(lost, torch.nan, x)


class Poisoned(Cyclic):
    """A buffer whose slots are spoilt at the 300th step: a third becomes NaN, a third 1e30."""

    name = "poisoned"
    stored = 0

    def store(self, slots, x):
        super().store(slots, x)
        self.stored += 1
        if self.stored == 300:
            third = len(self.slots.t) // 3
            self.slots.x[:third] = torch.nan
            self.slots.x[third : 2 * third] = 1e30


@hookimpl
def ebmkit_regularizers():
    return [NotANumber]


@hookimpl
def ebmkit_samplers():
    return [Strays]


@hookimpl
def ebmkit_buffers():
    return [Poisoned]
'''
LP = '{use="wgan_lp",weight=10.0}'
FAULTS: dict[str, list[str]] = {
    "learning rate x100": ['optimizer.learning_rate={use="cosine",start=0.06,end=0.0}'],
    "no penalty": ["regularizers=[]"],
    "poisoned buffer": ['buffer={use="poisoned", size=640}'],
    "NaN in a shard's image": ["data.shards=SHARDS", 'data.wrong_size="resize"'],
    "NaN from a regularizer": [f'regularizers=[{LP},{{use="not_a_number"}}]'],
    "NaN from a sampler": ['sampler={use="strays",steps=3,step_size="auto",noise={use="linear",start=0.2,end=0.0}}'],
}
HEALTHY = "healthy"


def campaign(count: int, folder: Path, progress: Callable[[str], None], steps: int | None = None) -> dict[str, Any]:
    """`count` seeds of each fault, and 20 healthy ones (1 for a `count` of 1); two runs at a time.

    Runs that an earlier call in this folder has ended are not repeated.
    """
    plugins = _install(folder / "plugins")
    shards = _shards_with_nan(folder)
    done = folder / "rows.jsonl"
    rows = list(read_lines(done))
    jobs = [(name, seed) for seed in range(count) for name in FAULTS]
    jobs += [(HEALTHY, seed) for seed in range(20 if count > 1 else 1)]
    jobs = [job for job in jobs if job not in {(row["fault"], row["seed"]) for row in rows}]

    def one(job: tuple[str, int]) -> dict[str, Any]:
        name, seed = job
        values = [value.replace("SHARDS", json.dumps(str(shards))) for value in FAULTS.get(name, [])]
        row = _run(folder / f"{name} {seed}".replace(" ", "_").replace("'", ""), plugins, seed, values, steps)
        return {"fault": name, "seed": seed, **row}

    with ThreadPoolExecutor(2) as pool:
        for future in as_completed([pool.submit(one, job) for job in jobs]):
            row = future.result()
            rows.append(row)
            append_line(done, row)
            progress(f"{len(rows)}: {json.dumps(row)}")
    return {"bound": BOUND, "rows": rows, "faults": _summed(rows), "failures": list(_failures(rows))}


def _run(folder: Path, plugins: Path, seed: int, values: list[str], steps: int | None) -> dict[str, Any]:
    # What a stopped campaign has left of this run.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    values = [f"seed={seed}", "train.sample_every=0", *values, *([f"train.steps={steps}"] if steps else [])]
    sets = [word for value in values for word in ("--set", value)]
    trained = _ebmkit(folder, plugins, "train", "digits", *sets)
    events = read_journal(folder / "runs/digits")
    row: dict[str, Any] = {
        "exit_code": trained.returncode,
        "rollbacks": sum(event["action"] == ROLLBACK for event in events),
        "skipped_updates": sum(event["count"] for event in events if event["action"] == SKIP),
        "restarted_chains": sum(event["count"] for event in events if event["action"] == "restart"),
    }
    if trained.returncode:
        said = trained.stderr.strip()
        return row | {"end": "diagnosis" if "training diverges" in said else "failed", "said": said[-500:]}
    measured = _ebmkit(folder, plugins, "evaluate", "runs/digits/model.safetensors", "--count", "512", "--json")
    if measured.returncode:
        return row | {"end": "failed", "said": measured.stderr[-500:]}
    distance = float(json.loads(measured.stdout)["pixel_frechet_distance"])
    return row | {"pixel_frechet_distance": distance, "end": "good" if distance <= BOUND else "worse"}


def _ebmkit(folder: Path, plugins: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(plugins), *sys.path[1:]])}
    if words[0] == "train":
        env["EBMKIT_STRAYS"] = "0.01"
    command = [sys.executable, "-m", "ebmkit", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def _summed(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["fault"] for row in rows):
        mine = [row for row in rows if row["fault"] == name]
        distances = sorted(row["pixel_frechet_distance"] for row in mine if "pixel_frechet_distance" in row)
        found[name] = {
            "runs": len(mine),
            **{end: sum(row["end"] == end for row in mine) for end in ("good", "diagnosis", "worse", "failed")},
            **{key: sum(row[key] for row in mine) for key in ("rollbacks", "skipped_updates", "restarted_chains")},
            "distances": [round(value, 3) for value in distances],
        }
    return found


def _failures(rows: list[dict[str, Any]]) -> Iterator[str]:
    disturbed = [row for row in rows if row["fault"] != HEALTHY]
    good = sum(row["end"] == "good" for row in disturbed)
    if good < 0.9 * len(disturbed):
        yield f"only {good} of {len(disturbed)} disturbed runs ended with a good model"
    for row in rows:
        if row["end"] == "failed":
            yield f"{row['fault']}, seed {row['seed']}: {row['said']}"
        if row["fault"] == HEALTHY and (row["rollbacks"] or row["skipped_updates"] or row["restarted_chains"]):
            yield f"a false alarm in the healthy run of seed {row['seed']}"


def _install(folder: Path) -> Path:
    """The plugin as an installed package: a module and its entry point."""
    info = folder / "ebmkit_reliability-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / "ebmkit_reliability.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ebmkit-reliability\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ebmkit]\nreliability = ebmkit_reliability\n")
    return folder


def _shards_with_nan(folder: Path) -> Path:
    """The digits, and among them a floating-point TIFF image of NaN under two names."""
    import numpy as np
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(data, format="TIFF")
    out = folder / "digits-with-nan.tar"
    with tarfile.open(out, "w") as target:
        for name in ("nan-0.tiff", "nan-1.png"):
            info = tarfile.TarInfo(name)
            info.size = len(data.getvalue())
            target.addfile(info, io.BytesIO(data.getvalue()))
        for shard in digits_shards():
            with tarfile.open(shard) as source:
                for member in source:
                    target.addfile(member, source.extractfile(member))
    return out
