"""Faults of machines, disks and data, each made for real while `ebmkit train` runs.

Promised, one by one, in the docstrings of the functions below. Where a run goes on, it ends as an undisturbed one does,
bit for bit, unless its data are not the same any more.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ebmkit.run_folder import RunFolder

from .helpers import (
    LONG,
    Command,
    Progress,
    Result,
    Unavailable,
    bound_read_only,
    differences,
    differs,
    environment,
    fill,
    free_bytes,
    has_checkpoint,
    leftovers,
    rows_of,
    small_disk,
    state_of,
    tiny_table,
    train,
    wait_until,
    write_recipe,
    write_shards,
)

STEPS, EVERY, MANY = 40, 5, 100_000
FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"
"""Where Debian's package has it."""


@dataclass
class Place:
    """A folder with shards, a recipe and, made when they are first needed, undisturbed runs."""

    folder: Path

    @cached_property
    def recipe(self) -> Path:
        """A short run; `cache = "off"` is what streams."""
        shards = write_shards(self.folder / "shards", shards=4, per_shard=24)
        changes = {"train__steps": STEPS, "train__checkpoint_every": EVERY, "data__shuffle": 7, "data__workers": 2}
        return write_recipe(self.folder / "recipe.toml", tiny_table(shards, **changes))

    @cached_property
    def whole(self) -> Path:
        """The run that nothing disturbed, cached; a streamed one is `streamed`."""
        return self._undisturbed("whole", [])

    @cached_property
    def streamed(self) -> Path:
        """The same, streamed by two workers."""
        return self._undisturbed("streamed", ["--set", "data.cache=off"])

    def _undisturbed(self, name: str, more: list[str]) -> Path:
        expect(train(self.recipe, "--run-dir", name, *more, cwd=self.folder), 0)
        return self.folder / name

    def started(self, run: Path, *more: object, at: int = EVERY) -> Command:
        """A run on its way, past its first checkpoint."""
        command = Command("train", self.recipe, "--run-dir", run, *more, cwd=self.folder)
        wait_until(lambda: has_checkpoint(run, at) or bool(said(command.err)), LONG)
        return command

    def resumed(self, run: Path, whole: Path) -> None:
        """The run goes on to the numbers of the undisturbed one."""
        expect(train(self.recipe, "--run-dir", run, "--resume", cwd=self.folder), 0)
        same(run, whole)


def expect(ended: Result, code: int, *told: str) -> str:
    """What it said; `AssertionError` where it ended otherwise, without one of these words, or with a traceback."""
    text = ended.out + ended.err
    assert ended.code == code, f"exit code {ended.code}, not {code}: {text}"
    assert "Traceback" not in text, text
    for words in told:
        assert words in text, f"'{words}' was not said: {text}"
    return text


def said(file: Path) -> str:
    """What a command said so far; its files come with its process."""
    return file.read_text(encoding="utf-8") if file.exists() else ""


def same(run: Path, whole: Path, metrics: bool = True) -> None:
    """Both runs are equal, and nothing unfinished is left."""
    found = [*differs(run, whole, metrics), *leftovers(run)]
    assert not found, f"{run}: {len(found)} differences, such as {found[:5]}"


def preempted(number: signal.Signals) -> Callable[[Place, Path], str]:
    """A signal to the whole process group, as many schedulers send it."""

    def fault(place: Place, run: Path) -> str:
        command = place.started(run, "--set", "data.cache=off")
        began = time.monotonic()
        command.kill(number, group=True)
        expect(command.wait(), 75, number.name, "nothing is lost", "--resume")
        seconds = time.monotonic() - began
        assert command.group_is_gone(LONG), "processes are left"
        place.resumed(run, place.streamed)
        return f"checkpoint and exit code 75 within {seconds:.1f} s; resumed to the same numbers"

    return fault


def early(place: Place, run: Path) -> str:
    """A signal before training began leaves no run folder behind, and asks to try again."""
    words = [sys.executable, "-m", "ebmkit", "train", str(place.recipe), "--run-dir", str(run)]
    process = subprocess.Popen(words, env=environment(), cwd=place.folder, stdout=-1, stderr=-2, text=True)
    bit = 1 << (signal.SIGUSR1 - 1)

    def listens() -> bool:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return bool(int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16) & bit)

    wait_until(listens, LONG)
    process.send_signal(signal.SIGUSR1)
    expect(Result(process.wait(LONG), process.communicate()[0], ""), 75, "give the same command again")
    assert not run.exists()
    return "exit code 75, no run folder left"


def full_disk_stops(place: Place, run: Path) -> str:
    """The old checkpoint stays, the unfinished one gives its room back, and the message says what is full."""
    with small_disk(run.parent / "disk", 16) as disk:
        run = disk / "run"
        command = place.started(run, "--set", f"train.steps={MANY}")
        ballast = fill(disk, 100_000)
        expect(command.wait(), 74, "No space left on device", "MB free on the disk of", "is whole", "--resume")
        saved = RunFolder(run).complete_checkpoints()
        assert saved
        assert not leftovers(run), leftovers(run)
        rows_of(run)
        # Not even a resume has room, and it changes nothing.
        refused = train(place.recipe, "--run-dir", run, "--resume", cwd=place.folder)
        expect(refused, 74, "No space left on device")
        assert RunFolder(run).complete_checkpoints() == saved
        ballast.unlink()
        step = saved[-1][0]
        expect(
            train(place.recipe, "--run-dir", run, "--resume", "--set", f"train.steps={step + 3}", cwd=place.folder), 0
        )
        assert has_checkpoint(run, step + 3)
        return "exit code 74, the checkpoint before is whole; with room again it goes on"


def full_disk_continues(place: Place, run: Path) -> str:
    """With train.save_errors = "continue" it trains on, and writes again when there is room."""
    with small_disk(run.parent / "disk", 16) as disk:
        run = disk / "run"
        more = ["--set", "train.save_errors=continue", "--set", f"train.steps={MANY}"]
        command = place.started(run, *more)
        ballast = fill(disk, 0)
        wait_until(lambda: "the checkpoint of step" in said(command.out), LONG)
        before = RunFolder(run).complete_checkpoints()[-1][0]
        ballast.unlink()
        wait_until(lambda: has_checkpoint(run, before + 3 * EVERY), LONG)
        command.kill(signal.SIGTERM)
        text = expect(command.wait(), 75, "trains on, the next one is tried again")
        rows_of(run)
        # Another run, which saves at that step only, has the same numbers then.
        step, other = RunFolder(run).complete_checkpoints()[-1][0], run.parent.parent / "other"
        again = ["--set", f"train.steps={MANY}", "--set", f"train.checkpoint_every={step}"]
        command = place.started(other, *again, at=step)
        command.kill(signal.SIGTERM)
        expect(command.wait(), 75)
        found = list(differences(*(state_of(RunFolder(folder).checkpoint(step)) for folder in (run, other))))
        assert not found, found[:5]
        return f"{text.count('warning: ')} warnings, no stop; checkpoints again as soon as there was room"


def full_disk_at_the_end(place: Place, run: Path) -> str:
    """The checkpoint of the last step has to be written, whatever train.save_errors says."""
    with small_disk(run.parent / "disk", 16) as disk:
        run = disk / "run"
        command = place.started(run, "--set", "train.save_errors=continue", "--set", f"train.steps={MANY}")
        ballast = fill(disk, 0)
        wait_until(lambda: "warning: " in said(command.out), LONG)
        command.kill(signal.SIGTERM)
        expect(command.wait(), 74, "No space left on device")
        assert not leftovers(run), leftovers(run)
        ballast.unlink()
        assert free_bytes(disk) > 0
        return "a stop whose checkpoint cannot be written ends with exit code 74, not 75"


def read_only_from_the_start(place: Place, run: Path) -> str:
    """A run folder that cannot be written is refused, new or resumed."""
    command = place.started(run)
    command.kill(signal.SIGTERM)
    expect(command.wait(), 75)
    with bound_read_only(run.parent):
        words = ["Read-only file system", str(run.parent)]
        expect(train(place.recipe, "--run-dir", run.parent / "new", cwd=place.folder), 2, *words)
        expect(train(place.recipe, "--run-dir", run, "--resume", cwd=place.folder), 2, *words)
    place.resumed(run, place.whole)
    return "exit code 2, told before training; nothing touched"


def read_only_meanwhile(place: Place, run: Path) -> str:
    """A run folder that turns read-only while it trains is a full disk."""
    command = place.started(run, "--set", f"train.steps={MANY}")
    with bound_read_only(run):
        expect(command.wait(), 74, "Read-only file system", "is whole")
    expect(train(place.recipe, "--run-dir", run, "--resume", "--set", "train.steps=1", cwd=place.folder), 0)
    assert not leftovers(run), leftovers(run)
    return "exit code 74, the checkpoint before is whole"


def vanish(shard: Path) -> None:
    """The file is gone."""
    shard.unlink()


def truncate(shard: Path) -> None:
    """Its end is gone."""
    os.truncate(shard, shard.stat().st_size // 3)


def rot(shard: Path) -> None:
    """Every byte is another one."""
    with shard.open("rb+") as file:
        file.write(random.Random(0).randbytes(shard.stat().st_size))


def shard_goes_bad(damage: Callable[[Path], None]) -> Callable[[Place, Path], str]:
    """Streaming, the shard is told once, and training goes on with the others; a cached set does not notice."""

    def fault(place: Place, run: Path) -> str:
        own = Place(run.parent / "own")
        own.folder.mkdir()
        command = own.started(run, "--set", "data.cache=off", "--set", f"train.steps={2 * STEPS}")
        shard = own.folder / "shards" / "train-000001.tar"
        damage(shard)
        text = expect(command.wait(), 0, str(shard))
        # Each of the two workers may meet it; it is told once.
        assert text.count(f"shard {shard}") == 1, text
        return "told once by name; training went on with the other shards"

    return fault


def shard_goes_bad_cached(place: Place, run: Path) -> str:
    """A set that is held in memory needs its shards no more."""
    own = Place(run.parent / "own")
    own.folder.mkdir()
    command = own.started(run)
    for shard in (own.folder / "shards").iterdir():
        rot(shard)
    expect(command.wait(), 0)
    same(run, place.whole)
    return "every shard turned to garbage: the same numbers as without"


def all_shards_vanish(place: Place, run: Path) -> str:
    """Without any image left the run ends, and says why."""
    own = Place(run.parent / "own")
    own.folder.mkdir()
    command = own.started(run, "--set", "data.cache=off", "--set", f"train.steps={MANY}")
    for shard in (own.folder / "shards").iterdir():
        shard.unlink()
    expect(command.wait(), 1, "no usable image in 4 shards", "cannot be opened")
    assert RunFolder(run).complete_checkpoints()
    return "exit code 1 with the names of the shards; the last checkpoint stays"


def worker_killed(place: Place, run: Path) -> str:
    """Data workers that are killed are replaced, and no image changes."""
    command, killed = place.started(run, "--set", "data.cache=off"), 0
    for at in (2 * EVERY, 4 * EVERY):
        wait_until(lambda at=at: has_checkpoint(run, at), LONG)
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        for child in children[: 1 + killed]:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
                killed += 1
    text = expect(command.wait(), 0, "a data worker ended unexpectedly")
    same(run, place.streamed)
    assert text.count("a data worker ended unexpectedly") <= killed
    return f"{killed} workers killed, the same numbers as without"


def clock_set_back(place: Place, run: Path) -> str:
    """Time that goes back a day, and then on a year, changes nothing."""
    found = sorted(Path("/").glob(FAKETIME[1:]))
    if not found:
        raise Unavailable("libfaketime is not installed")
    clock = run.parent / "clock"
    clock.write_text("+0")
    fake = {"LD_PRELOAD": str(found[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1"}
    # The kernel's monotonic clock does not go back when somebody sets the time.
    fake |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    words = [sys.executable, "-m", "ebmkit", "train", str(place.recipe), "--run-dir", str(run)]
    words += ["--set", "data.cache=off", "--set", "train.log_every=1"]
    process = subprocess.Popen(words, env=environment(**fake), cwd=place.folder, stdout=-1, stderr=-2, text=True)
    wait_until(lambda: has_checkpoint(run, EVERY) or process.poll() is not None, LONG)
    # Stopped meanwhile, so that the run meets both.
    process.send_signal(signal.SIGSTOP)
    clock.write_text("-1d")
    time.sleep(1.1)
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: has_checkpoint(run, 3 * EVERY) or process.poll() is not None, LONG)
    process.send_signal(signal.SIGSTOP)
    clock.write_text("+365d")
    time.sleep(1.1)
    process.send_signal(signal.SIGCONT)
    text = process.communicate(timeout=LONG)[0]
    expect(Result(process.returncode, text, ""), 0)
    changed = {time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime)) for path in run.rglob("*")}
    seconds = [row["seconds"] for row in rows_of(run)]
    assert seconds == sorted(seconds), "the seconds of the metrics went back"
    assert seconds[-1] < LONG, seconds[-1]
    same(run, place.streamed)
    assert len(changed) <= 2, "files have the kernel's time"
    return "the same numbers as without; seconds of the metrics only grow"


def two_processes(place: Place, run: Path) -> str:
    """A second run in the folder is refused; commands that read a run work beside it."""
    command = place.started(run, "--set", f"train.steps={MANY}")
    expect(train(place.recipe, "--run-dir", run, cwd=place.folder), 2, "already exists and is never overwritten")
    expect(train(place.recipe, "--run-dir", run, "--resume", cwd=place.folder), 2, "another process is training")
    for words in beside(run):
        expect(Command(*words, cwd=place.folder).wait(), 0)
    command.kill(signal.SIGTERM)
    expect(command.wait(), 75)
    assert sum(1 for _ in RunFolder(run).read_evaluations()) == 1
    return "refused with exit code 2; evaluate, sample, export and report work meanwhile"


def beside(run: Path) -> Iterable[list[object]]:
    """Commands that read a run."""
    model = run / "model.safetensors"
    yield ["sample", model, "--count", 4, "--out", run.parent / "grid.png"]
    yield ["evaluate", model, "--count", 8, "--batch-size", 4]
    yield ["export", run, "--out", run.parent / "exported.safetensors"]
    yield ["report", run, "--out", run.parent / "report.html"]


FAULTS: dict[str, Callable[[Place, Path], str]] = {
    "SIGTERM": preempted(signal.SIGTERM),
    "SIGUSR1": preempted(signal.SIGUSR1),
    "SIGUSR1 before training": early,
    "disk full, save_errors = stop": full_disk_stops,
    "disk full, save_errors = continue": full_disk_continues,
    "disk full at the end": full_disk_at_the_end,
    "read-only from the start": read_only_from_the_start,
    "read-only meanwhile": read_only_meanwhile,
    "a shard vanishes": shard_goes_bad(vanish),
    "a shard is truncated": shard_goes_bad(truncate),
    "a shard turns to garbage": shard_goes_bad(rot),
    "all shards turn to garbage, cached": shard_goes_bad_cached,
    "all shards vanish": all_shards_vanish,
    "a data worker is killed": worker_killed,
    "the clock is set back": clock_set_back,
    "two processes in one folder": two_processes,
}


def campaign(count: int, folder: Path, progress: Progress) -> dict[str, Any]:
    """Every fault `count` times."""
    began, failures, table = time.monotonic(), list[str](), dict[str, dict[str, Any]]()
    place = Place(folder)
    for name, fault in FAULTS.items():
        row = table[name] = {"tried": 0, "kept": 0, "what": ""}
        for number in range(count):
            run = folder / f"{list(FAULTS).index(name)}-{number}" / "run"
            run.parent.mkdir()
            try:
                row["what"] = fault(place, run)
                row["kept"] += 1
            except Unavailable as error:
                row["what"] = f"not tried: {error}"
                break
            except AssertionError as error:
                failures.append(f"{name}: {error}")
            row["tried"] += 1
        progress(f"{name}: {json.dumps(row)}")
    return {"faults": table, "seconds": round(time.monotonic() - began, 1), "failures": failures}
