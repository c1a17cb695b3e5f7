"""The newest figures in docs/reliability.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
END = "<!-- to here -->"


def write(folder: Path, page: Path) -> None:
    """Put the figures in `folder` between their marks in `page`; the rest of it is written by hand."""
    text = page.read_text(encoding="utf-8")
    for name, tell in TOLD.items():
        path = folder / f"{name}.json"
        told = _told(json.loads(path.read_text(encoding="utf-8")), tell) if path.is_file() else "Not measured yet."
        mark = f"<!-- measured: {name} -->"
        before, begin, rest = text.partition(mark)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise SystemExit(f"{page}: its marks {mark} and {END} are gone")
        text = f"{before}{mark}\n\n{told}\n\n{END}{after}"
    page.write_text(text, encoding="utf-8")


def _told(figures: Figures, tell: Callable[[Figures], Iterable[str]]) -> str:
    where = f"{figures['date']}, {figures['seconds']} s, {figures['versions']}, {figures['machine']}"
    command = f"python -m benchmarks.reliability {figures['campaign']} --count {figures['count']}"
    failures = figures["failures"]
    end = (
        ["Everything held."] if not failures else [f"**{len(failures)} failed:**", *(f"- {text}" for text in failures)]
    )
    return "\n".join(
        [
            f"**Figures** (`{command}`; {where}).",
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
    yield f"{figures['kills']} kills of one run of {figures['steps']} steps, each followed by `--resume`."
    yield "What was unfinished when they hit:"
    yield ""
    yield from _table(("unfinished", "kills"), hit.items())


def _faults(figures: Figures) -> Iterable[str]:
    rows = ((name, row["tried"], row["kept"], row["what"]) for name, row in figures["faults"].items())
    yield from _table(("fault", "tried", "kept its promise", "what happened"), rows)


def _divergence(figures: Figures) -> Iterable[str]:
    faults = figures["faults"]
    disturbed = [row for name, row in faults.items() if name != "healthy"]
    good, runs = sum(row["good"] for row in disturbed), sum(row["runs"] for row in disturbed)
    yield f"{good} of {runs} disturbed runs ended with a pixel Fréchet distance up to {figures['bound']}, unattended."
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
    used, refused = figures["used"], figures["refused"]
    yield f"{figures['inputs']:,} inputs: {used:,} were usable, {refused:,} were refused with a message."
    yield ""
    rows = [
        (part, f"{row['inputs']:,}", f"{row.get('used', 0):,}", f"{row.get('refused', 0):,}")
        for part, row in figures["parts"].items()
    ]
    yield from _table(("part", "inputs", "used", "refused"), rows)


def _soak(figures: Figures) -> Iterable[str]:
    steps, checkpoints = figures["steps"], figures["checkpoints"]
    yield f"{figures['minutes']} minutes, {steps:,} steps, {checkpoints:,} checkpoints and as many sample grids."
    yield ""
    names = {"megabytes": "resident memory, MB", "files": "open files", "kept_megabytes": "run folder, MB"}
    rows = [(title, *figures[name].values()) for name, title in names.items() if name in figures]
    yield from _table(("median", "second quarter", "last quarter", "slope an hour"), rows)


TOLD: dict[str, Callable[[Figures], Iterable[str]]] = {
    "divergence": _divergence,
    "kills": _kills,
    "faults": _faults,
    "hostile": _hostile,
    "fuzz": _fuzz,
    "soak": _soak,
}
"""How the figures of each campaign are told."""
