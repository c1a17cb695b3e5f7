"""The page of a report: its sections, and the file around them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from string import Template
from typing import Any

from ebmkit import __version__
from ebmkit.reporting import sections, words
from ebmkit.reporting.charts import POINTS, charts
from ebmkit.reporting.html import Html, joined, script_data, tag
from ebmkit.reporting.images import data_uri, thinned
from ebmkit.reporting.reading import Run

MARK = "<!doctype html>\n<!-- ebmkit report "
"""How every report begins, by which one is known as ours."""
SCRIPTS = ("scales.js", "charts.js", "report.js")
SHARE = 4
"""One part in so many of the size is for curves, as much for pictures, the rest for sample grids and text."""


@dataclass(frozen=True)
class Page:
    """A whole report, and a sentence on what it shows and what was left out to keep its size."""

    html: str
    summary: str


def render(runs: Sequence[Run], max_bytes: int, refresh: int = 0, now: datetime | None = None) -> Page:
    """The report of `runs`, of about `max_bytes` at most; one that is served asks for itself every `refresh` ms."""
    curves = charts(runs, max_bytes // SHARE)
    plots, plot_bytes = _plots(runs, max_bytes // SHARE)
    left = max_bytes * (SHARE - 1) // SHARE - plot_bytes - sum(len(str(chart)) for chart in curves)
    grids, shown = _grids(runs, max(left, 0))
    parts = [
        ("samples", "Samples", sections.samples(runs, grids)),
        ("curves", "Curves", sections.curves(runs, curves)),
        ("pictures", "Pictures", sections.pictures(plots)),
        ("metrics", "Metrics", sections.metrics(runs)),
        ("watchdog", "Watchdog", sections.watchdog(runs)),
        ("cost", "Cost", sections.cost(runs)),
        ("recipe", "Recipe", sections.recipe(runs)),
        ("versions", "Versions", sections.versions(runs)),
    ]
    parts = [(key, title, content) for key, title, content in parts if content]
    notes = _notes(runs, shown, len(plots))
    title = f"Run {runs[0].label}" if len(runs) == 1 else f"{len(runs)} runs: " + ", ".join(run.label for run in runs)
    stamp = words.minute((now or datetime.now(UTC)).isoformat())
    body = joined(
        [
            sections.head(title, f"Written {stamp} by ebmkit {__version__}", parts, watched=bool(refresh)),
            sections.overview(runs),
            *(tag("section", tag("h2", heading), content, id=key) for key, heading, content in parts),
        ]
    )
    data = {"charts": curves, "grids": grids}
    page = _around(title, body, Html(""), data, refresh)
    summary = "; ".join([words.megabytes(len(page.encode())), *notes])
    return Page(_around(title, body, tag("footer", summary), data, refresh), summary)


def _around(title: str, body: Html, footer: Html, data: Any, refresh: int) -> str:
    folder = files("ebmkit.reporting") / "assets"
    style = (folder / "report.css").read_text(encoding="utf-8")
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    # Nothing but this very script runs and nothing is fetched, whatever a run folder may hold.
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            f"connect-src {chr(39)}{'self' if refresh else 'none'}{chr(39)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return Template((folder / "report.html").read_text(encoding="utf-8")).substitute(
        policy=policy,
        title=joined([title]),
        style=style,
        script=script,
        body=body + footer,
        data=script_data(data),
        refresh=refresh,
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _grids(runs: Sequence[Run], budget: int) -> tuple[list[dict[str, Any]], int]:
    grids: list[dict[str, Any]] = []
    count = 0
    having = [number for number, run in enumerate(runs) if run.samples]
    for number in having:
        found = [(step, data_uri(path, budget)) for step, path in thinned(runs[number].samples, budget // len(having))]
        pictures = [(step, uri) for step, uri in found if uri is not None]
        if pictures:
            count += len(pictures)
            steps, uris = zip(*pictures, strict=True)
            grids.append({"run": number, "figure": len(grids), "steps": list(steps), "pictures": list(uris)})
    return grids, count


def _plots(runs: Sequence[Run], budget: int) -> tuple[list[tuple[str, str]], int]:
    plots, used = [], 0
    for run in runs:
        for name, path in run.plots:
            uri = data_uri(path, budget - used)
            if uri is not None:
                used += len(uri)
                title = name.replace("-", " ").replace("_", " ")
                plots.append((title if len(runs) == 1 else f"{run.label}: {title}", uri))
    return plots, used


def _notes(runs: Sequence[Run], grids: int, plots: int) -> list[str]:
    all_grids, all_plots = (
        sum(len(found) for found in kind) for kind in zip(*((run.samples, run.plots) for run in runs), strict=True)
    )
    kinds = {"sample grids": (grids, all_grids), "pictures": (plots, all_plots)}
    notes = [f"{kind}: {shown} of {total}" for kind, (shown, total) in kinds.items() if total]
    if any(len(run.curves.steps) > POINTS for run in runs):
        notes.append(f"curves thinned to {POINTS:,} points or fewer, extremes kept")
    hidden = len({name for run in runs for name in run.curves.left_out})
    if hidden:
        notes.append(f"{hidden} further metrics not shown")
    return notes
