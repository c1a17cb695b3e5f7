"""What the tests of runs share: tiny data and recipes, the command line in this process or in processes of its own."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from PIL import Image

from ebmkit import recipe as recipes
from ebmkit.cli import main
from ebmkit.console import Silent
from ebmkit.metering import METERED
from ebmkit.recipe import Part, Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.state_file import load_state
from ebmkit.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"


def environment(**extra: str) -> dict[str, str]:
    """The environment of test processes: one thread, no terminal settings that change the output."""
    kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "PYTHONPATH")}
    return kept | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | extra


def pictures(count: int, size: int = 8, channels: int = 1, seed: int = 0) -> np.ndarray:
    """uint8 `[count, size, size, channels]`: bright on the left, dark on the right, with some noise."""
    noise = np.random.default_rng(seed).integers(0, 80, (count, size, size, channels))
    ramp = np.linspace(175, 0, size)[None, None, :, None]
    return (noise + ramp).astype(np.uint8)


def write_shards(
    folder: Path, shards: int = 2, per_shard: int = 24, size: int = 8, channels: int = 1, seed: int = 0
) -> str:
    """Small WebDataset shards of PNG files; returns their pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    images = pictures(shards * per_shard, size, channels, seed)
    for shard in range(shards):
        with tarfile.open(folder / f"train-{shard:06d}.tar", "w") as tar:
            for i in range(per_shard):
                array = images[shard * per_shard + i]
                data = io.BytesIO()
                Image.fromarray(array[..., 0] if channels == 1 else array).save(data, format="PNG")
                info = tarfile.TarInfo(f"{shard:03d}-{i:05d}.png")
                info.size = data.tell()
                data.seek(0)
                tar.addfile(info, data)
    return str(folder / f"train-{{000000..{shards - 1:06d}}}.tar")


def tiny_table(shards: str, **set_values: Any) -> dict[str, Any]:
    """A recipe's table for 8x8 grey images and a few milliseconds a step; `section__key=value` changes it."""
    table: dict[str, Any] = {
        "seed": 3,
        "time_steps": 4,
        "data": {
            "shards": shards,
            "image_size": 8,
            "channels": 1,
            "horizontal_flip": True,
            "cache": "device",
            "workers": 0,
            "shuffle": 16,
        },
        "energy": {
            "use": "unet",
            "channels": 8,
            "channel_multipliers": [1, 1],
            "blocks_per_resolution": 1,
            "middle_blocks": 0,
            "head_width": 8,
        },
        "sampler": {"use": "langevin", "steps": 2, "noise": 0.05},
        "buffer": {"use": "cyclic", "size": 40},
        "objective": {"use": "contrastive_divergence"},
        "regularizers": [{"use": "wgan_lp", "weight": 20.0}],
        "optimizer": {"learning_rate": {"use": "cosine", "start": 1e-3, "end": 0.0}},
        "train": {
            "steps": 6,
            "batch_size": 8,
            "ema_decay": 0.9,
            "checkpoint_every": 2,
            "sample_every": 0,
            "sample_count": 4,
            "log_every": 1,
            "device": "cpu",
        },
    }
    for key, value in set_values.items():
        section, _, name = key.partition("__")
        if name:
            table[section][name] = value
        else:
            table[section] = value
    return table


def tiny_recipe(shards: str, **set_values: Any) -> Recipe:
    """The bound recipe of `tiny_table`."""
    return recipes.from_table(tiny_table(shards, **set_values), "tiny", "tiny")


def write_recipe(path: Path, table: Mapping[str, Any]) -> Path:
    """A recipe file of this table."""
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    return path


def with_part(recipe: Recipe, component: type) -> Recipe:
    """The recipe with one regularizer more, of a class that no plugin provides."""
    from dataclasses import replace

    part = Part("regularizer", component, component.Options())  # type: ignore[attr-defined]
    return replace(recipe, regularizers=(*recipe.regularizers, part))


def new_trainer(folder: Path, recipe: Recipe, say: Callable[[str], None] = lambda message: None) -> Trainer:
    """A trainer in a new run folder, in this process and with one thread."""
    torch.set_num_threads(1)
    run = RunFolder(folder)
    run.create(recipe.to_toml())
    return Trainer(recipe, run, "cpu", Silent(say))


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


def run_cli(*words: object, cwd: Path | None = None) -> Result:
    """The command line in this process: everything but the start of Python."""
    torch.set_num_threads(1)
    out, err = io.StringIO(), io.StringIO()
    before, code = sys.argv, 0
    sys.argv = ["ebmkit", *map(str, words)]
    try:
        with contextlib.ExitStack() as stack:
            if cwd is not None:
                stack.enter_context(contextlib.chdir(cwd))
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.argv = before
    return Result(code, out.getvalue(), err.getvalue())


def run_process(*words: object, cwd: Path, env: Mapping[str, str] | None = None, module: bool = True) -> Result:
    """`python -m ebmkit WORDS`, or `python WORDS`, in a process of its own."""
    command = [sys.executable, *(["-m", "ebmkit"] if module else []), *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env=dict(env or environment()), capture_output=True, text=True, timeout=120, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


_SERVER = """
import json, os, sys
import torch
torch.set_num_threads(1)
import ebmkit.running, ebmkit.image_files, ebmkit.evaluation, ebmkit.cli, ebmkit.data.cached, ebmkit.data.stream
import ebmkit_unet.network
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        status = os.waitpid(order["wait"], 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(order["cwd"])
        os.environ.update(order["env"])
        for stream, path in enumerate([os.devnull, order["out"], order["err"]]):
            mode = os.O_RDONLY if stream == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, mode, 0o644), stream)
        sys.argv = ["ebmkit", *order["words"]]
        code = 1
        try:
            ebmkit.cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(pid, flush=True)
"""


class _Server:
    """A process that has imported torch and forks one process for each command: seconds less for each."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        atexit.register(self.process.kill)

    def ask(self, order: Mapping[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@cache
def _server() -> _Server:
    return _Server()


class Command:
    """`ebmkit WORDS` in a process and a process group of its own, which can be sent signals."""

    def __init__(self, *words: object, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self.out, self.err = cwd / f".out-{time.monotonic_ns()}", cwd / f".err-{time.monotonic_ns()}"
        order = {"words": [str(w) for w in words], "cwd": str(cwd), "env": dict(env or {})}
        self.pid = _server().ask(order | {"out": str(self.out), "err": str(self.err)})

    def kill(self, number: int = signal.SIGKILL, group: bool = False) -> None:
        """Send a signal to the process, or to its whole group as Ctrl-C does."""
        try:
            (os.killpg if group else os.kill)(self.pid, number)
        except ProcessLookupError:
            # So young that it has no group of its own yet.
            os.kill(self.pid, number)

    def wait(self) -> Result:
        """Its end; a negative code is the signal that ended it."""
        code = _server().ask({"wait": self.pid})
        return Result(code, self.out.read_text(), self.err.read_text())

    def group_is_gone(self, within: float = 10.0) -> bool:
        """Whether no process of its group is left, after at most so many seconds."""
        try:
            wait_until(lambda: not _alive_in_group(self.pid), within)
        except AssertionError:
            return False
        return True


def _alive_in_group(group: int) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] != "Z":
                    return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Look every two milliseconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.002)


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without what differs from run to run: its cost."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in METERED} for row in rows]


def last_checkpoint(folder: Path) -> dict[str, Any]:
    """Everything that the newest checkpoint holds."""
    newest = RunFolder(folder).complete_checkpoints()[-1][1]
    return {path.name: load_state(path) for path in sorted(newest.iterdir())}


def differences(a: Any, b: Any, path: str = "") -> Iterable[str]:
    """Where two nested states differ, bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape or not torch.equal(a, b):
            yield path
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            if key in a and key in b:
                yield from differences(a[key], b[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from differences(*pair, f"{path}/{i}")
    elif a != b:
        yield path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, for "nothing was touched"."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
