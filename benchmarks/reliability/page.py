"""docs/reliability.md: what is promised, which campaign and which tests show it, and the newest figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

HEAD = """# Reliability

What ebmkit promises about long runs, failing machines and files of other people, and how often each promise was put to the test.
Every number on this page is written by one command, which makes each fault for real: processes are killed, disks filled, files
damaged, runs made to diverge.

```bash
python -m benchmarks.reliability              # everything: hours on two cores
python -m benchmarks.reliability kills soak   # some of it; the other figures stay
```

It runs in a checkout with `pip install -e '.[test]'`, on Linux; what needs a mount runs as root only, and is marked as not tried
elsewhere. The figures are in `docs/reliability/`, one file a campaign. The ordinary tests run each campaign in a short form.
"""
Figures = dict[str, Any]


def write(folder: Path, page: Path) -> None:
    """The page, from the files of figures in `folder`."""
    parts = [HEAD]
    for name, title, promise, tests, tell in SECTIONS:
        path = folder / f"{name}.json"
        parts += [f"## {title}", promise.strip(), f"**Tests.** {tests}"]
        parts.append(
            _told(json.loads(path.read_text(encoding="utf-8")), tell) if path.is_file() else "Not measured yet."
        )
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


def _told(figures: Figures, tell: Callable[[Figures], Iterable[str]]) -> str:
    where = f"{figures['date']}, {figures['seconds']} s, {figures['versions']}, {figures['machine']}"
    failures = figures["failures"]
    end = (
        ["Everything held."] if not failures else [f"**{len(failures)} failed:**", *(f"- {text}" for text in failures)]
    )
    return "\n".join(
        [
            f"**Figures** (`python -m benchmarks.reliability {figures['campaign']}`; {where}).",
            "",
            *tell(figures),
            "",
            *end,
        ]
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [list(header), ["---"] * len(header), *(list(map(str, row)) for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _kills(figures: Figures) -> Iterable[str]:
    hit = figures["unfinished"]
    yield f"{figures['kills']} kills of one run of {figures['steps']} steps, each followed by `--resume`. What was unfinished when they hit:"
    yield ""
    yield from _table(("unfinished", "kills"), hit.items())


def _faults(figures: Figures) -> Iterable[str]:
    rows = ((name, row["tried"], row["kept"], row["what"]) for name, row in figures["faults"].items())
    yield from _table(("fault", "tried", "kept its promise", "what happened"), rows)


def _divergence(figures: Figures) -> Iterable[str]:
    faults = figures["faults"]
    disturbed = [row for name, row in faults.items() if name != "healthy"]
    good, runs = sum(row["good"] for row in disturbed), sum(row["runs"] for row in disturbed)
    yield f"{good} of {runs} disturbed runs ended with a pixel Fréchet distance of at most {figures['bound']}, unattended."
    yield ""
    header = (
        "runs of `digits`",
        "runs",
        "good",
        "diagnosis",
        "worse",
        "rollbacks",
        "updates skipped",
        "chains restarted",
        "distance",
    )
    rows = []
    for name, row in faults.items():
        found = row["distances"]
        counts = [
            row[key]
            for key in ("runs", "good", "diagnosis", "worse", "rollbacks", "skipped_updates", "restarted_chains")
        ]
        rows.append([name, *counts, f"{found[0]} to {found[-1]}" if found else "-"])
    yield from _table(header, rows)


def _hostile(figures: Figures) -> Iterable[str]:
    yield (
        f"{figures['cases']} pairs of a hostile file and a command that reads it; exit codes: "
        + ", ".join(f"{code} ({count}x)" for code, count in figures["exit_codes"].items())
        + "."
    )
    yield ""
    rows = [
        (kind, count, figures["peak_mb_above_idle"].get(kind, "-"), figures["longest_seconds"].get(kind, "-"))
        for kind, count in figures["files"].items()
    ]
    yield from _table(("kind of file", "files", "most memory, MB above idle", "longest, s"), rows)


def _fuzz(figures: Figures) -> Iterable[str]:
    yield f"{figures['inputs']:,} inputs: {figures['used']:,} were usable, {figures['refused']:,} were refused with a message."
    yield ""
    rows = [
        (part, f"{row['inputs']:,}", f"{row.get('used', 0):,}", f"{row.get('refused', 0):,}")
        for part, row in figures["parts"].items()
    ]
    yield from _table(("part", "inputs", "used", "refused"), rows)


def _soak(figures: Figures) -> Iterable[str]:
    yield f"{figures['minutes']} minutes, {figures['steps']:,} steps, {figures['checkpoints']:,} checkpoints and sample grids."
    yield ""
    names = {"megabytes": "resident memory, MB", "files": "open files", "kept_megabytes": "run folder, MB"}
    rows = [(title, *figures[name].values()) for name, title in names.items() if name in figures]
    yield from _table(("median", "second quarter", "last quarter", "slope an hour"), rows)


SECTIONS: tuple[tuple[str, str, str, str, Callable[[Figures], Iterable[str]]], ...] = (
    (
        "divergence",
        "Training that diverges",
        """
**Promise.** Of runs whose learning rate is 100 times too large, whose penalty is missing, whose buffer is poisoned, whose shards hold an
image of NaN, or whose plugins give NaN, at least 9 in 10 end with a model as good as an undisturbed one, with nobody there, and the
others with a diagnosis. Healthy runs raise no alarm. ([The watchdog](watchdog.md) says how.)
""",
        "`tests/test_watchdog.py`",
        _divergence,
    ),
    (
        "kills",
        "Kills",
        """
**Promise.** After `kill -9` at any moment, a run resumes from a checkpoint no older than the last one announced, and ends with the
same weights, moving average, optimizer, buffer and metrics as an undisturbed run, bit for bit.
""",
        "`tests/test_reliability_kills.py`, `tests/test_resume.py`",
        _kills,
    ),
    (
        "faults",
        "Faults of machines",
        """
**Promise.** A preempted run (SIGTERM, SIGUSR1) writes a checkpoint and exits with 75, which schedulers can requeue. A full or
write-protected disk costs no earlier checkpoint. Shards that vanish or rot, and killed data workers, do not end a run that still has
data. A clock that is set back changes nothing. A second process in the same run folder refuses.
""",
        "`tests/test_reliability_faults.py`, `tests/test_data_faults.py`",
        _faults,
    ),
    (
        "hostile",
        "Files of other people",
        """
**Promise.** Whatever stands in a model file, a shard, a recipe or a sweep: nothing of it runs, nothing is written outside the folder
that the command writes to, no shell is started, memory stays bounded, and the message names the file. Nothing is unpickled. `pipe:`
sources run only from the user's own recipe or command line.
""",
        "`tests/test_hostile.py`",
        _hostile,
    ),
    (
        "fuzz",
        "Random input",
        """
**Promise.** Recipes, `--set` values, sweeps, model files, checkpoints, shards and images of random or damaged content are used, or
refused with a message: there is no other end, and none takes long.
""",
        "`tests/test_hostile.py`",
        _fuzz,
    ),
    (
        "soak",
        "Hours",
        """
**Promise.** After a warm-up resident memory and open files stay flat, and the run folder holds no more than the kept checkpoints, one
model, metrics and sample grids.
""",
        "none in the ordinary suite: `python -m benchmarks.reliability soak --count 120` trains for two hours.",
        _soak,
    ),
)
"""Name, title, promise, tests, and what is told of the figures."""
