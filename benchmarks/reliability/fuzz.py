"""Inputs made by chance, most of them good ones that were changed: recipes, `--set`, sweeps, shards, images, models.

Promised: each is used or refused by an error for people, within `MOST_SECONDS`; never by another exception. No process
starts, nothing is unpickled, no file is written, and memory does not grow. Each part runs in a process of its own, so
that a crash of a decoder is seen, too; the input that it died of is kept in the folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

SHARES = {
    "recipes": 0.35,
    "toml": 0.15,
    "sets": 0.08,
    "sweeps": 0.02,
    "shards": 0.2,
    "images": 0.1,
    "models": 0.07,
    "states": 0.03,
}
"""Of all inputs."""
MOST_SECONDS = 5.0
"""Of processor time for an input: the machine may do other things as well."""
MOST_GROWTH_MB = 300
"""From the first hundred inputs to the peak of the last."""
MOST_TOLD = 20


def campaign(count: int, folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """About `count` inputs, the same ones each time; figures, and what went wrong under "failures"."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"inputs": 0, "used": 0, "refused": 0, "parts": {}}
    failures: list[str] = []
    plan = {part: max(1, round(count * share)) for part, share in SHARES.items()}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "EBMKIT_CACHE": str(folder / "cache")}
    command = [sys.executable, __file__, str(folder), json.dumps(plan)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = json.loads(line)
            part = found.pop("part")
            failures += [f"{part}: {text}" for text in found.pop("failures")]
            figures["parts"][part] = found
            for key in ("inputs", "used", "refused"):
                figures[key] += found.get(key, 0)
            progress(f"{part}: {json.dumps(found)}")
    missing = [part for part in plan if part not in figures["parts"]]
    failures += [f"{part}: was not run" for part in missing]
    return {**figures, "failures": failures}


def run_parts(folder: Path, plan: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Each part in a fork of this process, which has imported everything."""
    import fuzz_targets  # noqa: F401

    for part, count in plan.items():
        own = folder / part
        own.mkdir(exist_ok=True)
        result = own / "result.json"
        pid = os.fork()
        if pid == 0:
            code = 1
            # libtiff tells of each fault there.
            os.dup2(os.open(own / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
            try:
                result.write_text(json.dumps(run_part(part, count, own)), encoding="utf-8")
                code = 0
            finally:
                os._exit(code)
        until = time.monotonic() + 120 + count * MOST_SECONDS / 10
        while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < until:
            time.sleep(0.01)
        if not ended[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            yield {"part": part, "failures": ["was not at its end in time; its input is in its folder"]}
        elif ended[1]:
            code = os.waitstatus_to_exitcode(ended[1])
            yield {"part": part, "failures": [f"the process ended with {code}; its input is in its folder"]}
        else:
            yield {"part": part, **json.loads(result.read_text(encoding="utf-8"))}


def run_part(part: str, count: int, folder: Path) -> dict[str, Any]:
    """In the process of this part."""
    import random
    import warnings

    import fuzz_targets

    from ebmkit.errors import EbmkitError

    warnings.simplefilter("ignore")
    make, use = fuzz_targets.TARGETS[part](folder)
    current = folder / "current"
    events: list[str] = []
    watch(folder, events)
    failures: list[str] = []
    tally: Counter[str] = Counter()
    longest, early, begun = 0.0, 0.0, time.monotonic()
    for number in range(count):
        made = make(random.Random(f"{part} {number}"))
        current.write_bytes(made if isinstance(made, bytes) else repr(made).encode(errors="backslashreplace"))
        before = time.process_time()
        try:
            use(made)
            tally["used"] += 1
        except EbmkitError as error:
            tally["refused"] += 1
            if len(str(error)) > 20_000:
                failures.append(f"input {number}: a message of {len(str(error)):,} characters")
        except Exception as error:  # noqa: BLE001 - any other is what this is about
            failures.append(f"input {number}: {type(error).__name__}: {str(error)[:300]} {_place(error)}")
        taken = time.process_time() - before
        longest = max(longest, taken)
        if taken > MOST_SECONDS:
            failures.append(f"input {number}: {taken:.1f} s")
        if number == min(100, count - 1):
            early = _peak()
    growth = _peak() - early
    if growth > MOST_GROWTH_MB:
        failures.append(f"memory grew by {growth:.0f} MB")
    failures += [f"forbidden: {event}" for event in events]
    more = [f"and {len(failures) - MOST_TOLD} more"] if len(failures) > MOST_TOLD else []
    return {
        "inputs": count,
        "used": tally["used"],
        "refused": tally["refused"],
        "seconds": round(time.monotonic() - begun, 1),
        "longest_seconds": round(longest, 2),
        "growth_mb": round(growth, 1),
        "failures": failures[:MOST_TOLD] + more,
    }


def watch(folder: Path, events: list[str]) -> None:
    """Note what no input may cause."""
    from child import FORBIDDEN, WRITES

    own = os.path.realpath(folder)

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            events.append(f"{event} {values!r}"[:300])
        elif (
            event == "open" and isinstance(values[0], str | bytes) and isinstance(values[2], int) and values[2] & WRITES
        ):
            path = os.path.realpath(os.fsdecode(values[0]))
            if not path.startswith((own + os.sep, "/dev/null")):
                events.append(f"open for writing {path!r}"[:300])

    sys.addaudithook(hook)


def _peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _place(error: BaseException) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))


if __name__ == "__main__":
    for done in run_parts(Path(sys.argv[1]), json.loads(sys.argv[2])):
        sys.stdout.write(json.dumps(done) + "\n")
        sys.stdout.flush()
