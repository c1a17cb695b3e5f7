"""The sections of a report, each from what was read; one that has nothing to show is empty."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ebmkit.reporting import words
from ebmkit.reporting.comparing import MAX_TEXT, Row, compare
from ebmkit.reporting.cost import cost_of
from ebmkit.reporting.html import Cell, Html, Number, joined, table, tag, void
from ebmkit.reporting.reading import Run
from ebmkit.watchdog.journal import PENALTY, RESTART, ROLLBACKS, SKIP, STOP, count_events, sentence

MAX_EVALUATIONS = 200
MAX_EVENTS = 50
MAX_TOML = 64_000
"""Characters of a recipe.toml that are shown."""


def head(title: str, note: str, parts: Sequence[tuple[str, str, Html]], watched: bool) -> Html:
    """The title, and links to the sections."""
    links = tag("nav", *(tag("a", name, href=f"#{key}") for key, name, _ in parts), aria_label="Sections")
    live = joined([" \u00b7 ", tag("span", "live", id="live")]) if watched else Html("")
    return tag("header", tag("h1", title), tag("p", note, live, class_="faint"), links)


def overview(runs: Sequence[Run]) -> Html:
    """A card for each run: how far it is, how good, and how fast."""
    return tag(
        "section", tag("div", *(_card(number, run) for number, run in enumerate(runs)), class_="cards"), id="runs"
    )


def _card(number: int, run: Run) -> Html:
    steps, cost = _at(run.table, "train", "steps"), cost_of(run)
    rows = [
        ("recipe", run.model.get("name")),
        ("step", f"{words.whole(run.step)} of {words.number(steps)}"),
        ("time in training", words.duration(cost.seconds)),
        ("images/s", words.number(cost.images_per_second)),
        ("last metrics", words.minute(run.written.isoformat()) if run.written else "none yet"),
    ]
    if run.evaluations:
        newest = run.evaluations[-1]
        step = newest.get("step", run.step)
        at = "" if step == run.step else f" at step {words.number(step)}"
        rows += [(words.metric(name) + at, words.number(value)) for name, value in _metrics(newest).items()][:4]
    items = [tag("dt", key) + tag("dd", value) for key, value in rows if value is not None]
    return tag("article", tag("h3", chip(number), run.label), tag("dl", *map(Html, items)), class_="card")


def chip(number: int) -> Html:
    """The colour of a run."""
    return tag("span", class_=f"chip run-{number % 6}")


def samples(runs: Sequence[Run], grids: Sequence[Mapping[str, Any]]) -> Html:
    """Sample grids, and a slider through the steps at which they were drawn."""
    if not grids:
        return Html("")
    figures = []
    for grid in grids:
        run, step = runs[grid["run"]], f"step {words.whole(grid['steps'][-1])}"
        # Without scripts the newest grid shows.
        image = void("img", src=grid["pictures"][-1], alt=step, class_="grid")
        caption = tag("figcaption", chip(grid["run"]), f"{run.label}, ", tag("span", step, class_="at"))
        figures.append(tag("figure", image, caption))
    slider = void("input", type="range", min=0, max=0, value=0, step=1)
    controls = tag(
        "div",
        tag("label", "Through training", slider, tag("output"), class_="wide"),
        tag("button", "Play", type="button"),
        class_="controls",
    )
    return joined([controls, tag("div", *figures, class_="pictures")])


def curves(runs: Sequence[Run], charts: Sequence[Mapping[str, Any]]) -> Html:
    """Frames that the page's script fills with curves, and what steers them."""
    if not charts:
        return Html("")
    steps = [void("input", type="number", min=0, aria_label=f"{word} step") for word in ("first", "last")]
    controls: list[Html] = [
        tag("label", "Steps ", steps[0], " to ", steps[1]),
        tag("button", "All steps", type="button", id="whole"),
        tag("label", "Smoothing", void("input", type="range", min=0, max="0.98", step="0.02", value=0, id="smooth")),
    ]
    if len(runs) > 1:
        toggles = [
            tag("button", chip(number), run.label, type="button", data_run=number, aria_pressed="true", class_="run")
            for number, run in enumerate(runs)
        ]
        controls.insert(0, tag("div", *toggles, class_="legend"))
    figures = [
        tag(
            "figure",
            tag(
                "header",
                tag("h3", str(chart["title"])),
                tag("button", "log", type="button", title="Logarithmic scale", aria_pressed="false"),
            ),
            tag("svg", role="img", aria_label=str(chart["title"])),
            tag("figcaption", str(chart["note"])) if chart["note"] else Html(""),
            class_="chart card",
        )
        for chart in charts
    ]
    hint = tag(
        "p",
        "Over the steps of training. Drag over a chart to zoom all of them; a double click shows all steps again.",
        class_="faint",
    )
    without = tag("noscript", tag("p", "The curves are drawn by this page's own script, which is switched off here."))
    return joined([hint, without, tag("div", *controls, class_="controls"), tag("div", *figures, class_="charts")])


def pictures(plots: Sequence[tuple[str, str]]) -> Html:
    """Trajectories, neighbours and what else lies in the folders `plots/` of the runs."""
    figures = [tag("figure", void("img", src=uri, alt=name), tag("figcaption", name)) for name, uri in plots]
    return tag("div", *figures, class_="pictures wide-pictures") if figures else Html("")


def metrics(runs: Sequence[Run]) -> Html:
    """A row for each evaluation, the newest of a run last."""
    found = [(number, run, item) for number, run in enumerate(runs) for item in run.evaluations[-MAX_EVALUATIONS:]]
    if not found:
        return Html("")
    names = list(dict.fromkeys(name for _, _, item in found for name in _metrics(item)))[:40]
    rows: list[list[Cell]] = []
    changed = any(item.get("overrides") for _, _, item in found)
    for number, run, item in found:
        values = _metrics(item)
        more = [Number(words.number(item.get(key))) for key in ("samples", "images", "seed")]
        text = [str(item.get(key) or words.NOTHING)[:MAX_TEXT] for key in ("data", "extractor")]
        text += [_overrides(item)[:MAX_TEXT]] if changed else []
        rows.append(
            [
                joined([chip(number), run.label]),
                Number(words.number(item.get("step"))),
                *(Number(words.number(values.get(name))) for name in names),
                *more,
                *text,
                Number(words.minute(item.get("time"))),
            ]
        )
    heads: list[Cell] = ["run", Number("step"), *(Number(words.metric(name)) for name in names)]
    heads += [
        Number("samples"),
        Number("real images"),
        Number("seed"),
        "data",
        "extractor",
        *(["sampler"] if changed else []),
    ]
    heads.append(Number("time"))
    note = tag("p", "Numbers compare only where data, counts, extractor and sampler are the same.", class_="faint")
    return joined([note, table(heads, rows, label="Evaluations")])


def _overrides(item: Mapping[str, Any]) -> str:
    """How the sampler was changed for an evaluation, as by `--set`."""
    found = item.get("overrides")
    if not isinstance(found, dict):
        return words.NOTHING
    return " ".join(f"{str(key).removeprefix('sampler.')}={value}" for key, value in found.items())


def watchdog(runs: Sequence[Run]) -> Html:
    """How often the watchdog acted in each run, and what ended or threw back training."""
    if not any(run.events for run in runs):
        return Html("")
    counted: list[list[Cell]] = []
    told: list[list[Cell]] = []
    for number, run in enumerate(runs):
        counts = count_events(run.events)
        rollbacks = sum(counts[name] for name in ROLLBACKS)
        numbers = (counts[SKIP], counts[RESTART], rollbacks, counts[PENALTY], counts[STOP])
        counted.append([joined([chip(number), run.label]), *(Number(words.whole(value)) for value in numbers)])
        large = [event for event in run.events if event["action"] in (*ROLLBACKS, STOP)]
        told += [
            [
                joined([chip(number), run.label]),
                Number(words.number(event.get("step"))),
                sentence(event)[:MAX_TEXT],
                Number(words.minute(event.get("time"))),
            ]
            for event in large[-MAX_EVENTS:]
        ]
    heads = ("updates skipped", "chains started again", "rollbacks", "with a penalty", "ended by it")
    parts = [table(["run", *map(Number, heads)], counted, label="Watchdog")]
    if told:
        parts.append(table(["run", Number("step"), "what it did, and why", Number("time")], told, label="Rollbacks"))
    return joined(parts)


def cost(runs: Sequence[Run]) -> Html:
    """What training has cost so far."""
    rows: list[list[Cell]] = []
    for number, run in enumerate(runs):
        found = cost_of(run)
        memory = words.NOTHING if found.peak_memory_mb is None else f"{found.peak_memory_mb:,.0f} MB"
        cells = [words.whole(run.step), words.whole(found.images), words.duration(found.seconds)]
        cells += [words.number(found.images_per_second), memory, words.large(found.gradient_evaluations)]
        cells += [words.large(found.evaluations_per_image)]
        rows.append([joined([chip(number), run.label]), *map(Number, cells)])
    heads: list[Cell] = ["run", *map(Number, ("steps", "images", "time", "images/s", "peak memory"))]
    heads += [Number("gradient evaluations"), Number("per drawn image")]
    note = (
        "A gradient evaluation is one gradient of the energy by one image, in the chains: steps \u00d7 batch size "
        "\u00d7 K while training, T \u00d7 K for an image that is drawn. The update of the weights comes on top."
    )
    return joined([table(heads, rows, label="Cost"), tag("p", note, class_="faint")])


def recipe(runs: Sequence[Run]) -> Html:
    """Where the recipes differ, all of their keys, and each recipe as it can be trained again."""
    rows = compare([run.table for run in runs])
    heads: list[Cell] = ["key", *(joined([chip(number), run.label]) for number, run in enumerate(runs))]
    different = [row for row in rows if row.differs]
    parts = []
    if len(runs) > 1:
        if different:
            parts.append(table(heads, map(_cells, different), label="Differences"))
        else:
            parts.append(tag("p", "The recipes are the same."))
    whole = table(
        heads,
        map(_cells, rows),
        marked=[number for number, row in enumerate(rows) if row.differs],
        label="All keys",
    )
    parts.append(tag("details", tag("summary", f"All {len(rows)} keys"), whole, id="keys"))
    for number, run in enumerate(runs):
        text = run.toml if len(run.toml) <= MAX_TOML else run.toml[:MAX_TOML] + "\n# cut off here"
        title = "recipe.toml" if len(runs) == 1 else f"recipe.toml of {run.label}"
        parts.append(tag("details", tag("summary", title), tag("pre", text, tabindex=0), id=f"toml-{number}"))
    return joined(parts)


def versions(runs: Sequence[Run]) -> Html:
    """What the model files say that they were made with."""
    names = ["ebmkit", "torch", "plugin_api"]
    found = [{name: run.model[name] for name in names if name in run.model} | _plugins(run) for run in runs]
    if not any(found):
        return Html("")
    rows = compare(found)
    heads: list[Cell] = ["made with", *(joined([chip(number), run.label]) for number, run in enumerate(runs))]
    marked = [number for number, row in enumerate(rows) if row.differs]
    return table(heads, [[row.key, *(_plain(value) for value in row.values)] for row in rows], marked, "Versions")


def _plugins(run: Run) -> dict[str, str]:
    try:
        found = json.loads(run.model.get("plugins", "{}"))
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _metrics(item: Mapping[str, Any]) -> Mapping[str, Any]:
    found = item.get("metrics")
    return found if isinstance(found, Mapping) else {}


def _at(tables: Mapping[str, Any], section: str, key: str) -> Any:
    found = tables.get(section)
    return found.get(key) if isinstance(found, Mapping) else None


def _cells(row: Row) -> list[Cell]:
    return [tag("code", row.key), *(None if value is None else tag("code", value) for value in row.values)]


def _plain(text: str | None) -> str | None:
    return None if text is None else text.strip('"')
