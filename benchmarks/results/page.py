"""The measured part of a page in docs/results."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pages import markdown, write_measured
from benchmarks.results.comparing import compare, noise, values

NOTHING = "\u2013"
SHORT = {
    "pixel_frechet_distance": "pixel Fréchet distance ↓",
    "pixel_std_ratio": "std → 1",
    "neighbour_difference_ratio": "neighbours → 1",
    "spectrum_distance": "spectrum (dB) ↓",
    "nearest_image_ratio": "nearest → 1",
}


def write(figures: dict[str, Any], path: Path) -> None:
    """Put the tables and pictures between the marks of the page."""
    write_measured(path, "\n".join(_text(figures)))


def main_metric(figures: dict[str, Any]) -> str:
    """The metric that decides: KID where there is one, which contrast lowers less, else the first (docs: results)."""
    names = metrics_of(figures)
    if not names:
        raise SystemExit(f"{figures['sweep']}: no run has ended, so that there is nothing to tell")
    return next((name for name in names if name.startswith("kid[")), names[0])


def metrics_of(figures: dict[str, Any]) -> list[str]:
    """The names of all metrics, in their order."""
    return list(dict.fromkeys(name for p in figures["points"] for run in p["runs"] for name in run["metrics"]))


def group_of(name: str) -> tuple[str, str]:
    """`network: no norm` is the choice `no norm` of the group `network`."""
    group, colon, choice = name.partition(": ")
    return (group, choice) if colon else ("", name)


def heading(name: str) -> str:
    """A metric as a short heading."""
    plain, bracket, network = name.partition("[")
    if bracket:
        title = {"frechet_distance": "feature distance", "kid": "KID"}.get(plain, plain)
        return f"{title} ({network.removesuffix(']')}) ↓"
    return SHORT.get(name, name)


def called(name: str) -> str:
    """A metric in a sentence: its heading without the arrow."""
    return heading(name).removesuffix(" ↓").removesuffix(" → 1")


def _text(figures: dict[str, Any]) -> Iterator[str]:
    points, metric = figures["points"], main_metric(figures)
    runs = [run for point in points for run in point["runs"]]
    hours = sum(run["seconds"] for run in runs) / 3600
    shape = "x".join(map(str, figures["image"]))
    yield (
        f"`{figures['command']}`; {figures['date']}, {figures['versions']}; {figures['machine']}. "
        f"{len(runs)} of {figures['planned']} runs, {hours:.1f} hours of training by the wall clock. Images {shape}; "
        f"{_length(figures)} of batch {figures['batch_size']} where no point says otherwise; "
        f"{figures['samples']} samples of each run."
    )
    if figures["floor"]:
        told = ", ".join(f"{heading(name)} {value:.3g}" for name, value in figures["floor"].items())
        yield ""
        yield f"Floor, as many real images against the other ones: {told}."
    yield ""
    yield (
        "Gradient norms are those of the energy at 64 chains of the first finished run, at the start of each time "
        "step: the mean, and the largest."
    )
    yield ""
    name, compared, share = figures["sweep"], compare(points, metric), 100 * noise(points, metric)
    if len(figures["points"]) == 1:
        yield "There are no ratios: it is one row."
    elif not compared:
        yield "There are no ratios: the first row has no finished run, or a distance that is not above 0."
    elif math.isnan(share):
        yield "The ratio is to the first row; how sure it is one seed cannot tell."
    else:
        yield (
            f"Beside what a seed does to all rows alike, the {called(metric)} varies by {share:.1f}% from seed to "
            "seed. The ratio is to the first row, with its interval of 95%."
        )
    if len(compared) > 1:
        yield ""
        yield f"![Ratios of the {called(metric)}, with intervals of 95%]({name}.png)"
    others = [other for other in metrics_of(figures) if other != metric]
    header = [
        "choice",
        "seeds",
        heading(metric),
        "ratio",
        "",
        *map(heading, others),
        "gradient norm, largest",
        "T*K",
        "seconds",
    ]
    for group, members in itertools.groupby(points, lambda point: group_of(point["name"])[0]):
        yield ""
        if group:
            yield f"### {group.capitalize()}"
            yield ""
        yield markdown(header, [_row(point, metric, others, compared) for point in members])
    courses = courses_of(figures)
    if courses:
        yield ""
        yield "### While training"
        yield ""
        yield f"The {called(metric)} of the checkpoints, the mean over seeds; dotted the floor."
        yield ""
        yield f"![The distance against images seen and minutes]({name}_course.png)"
        yield ""
        marks = list(dict.fromkeys(row["mark"] for rows in courses.values() for row in rows))
        lines = []
        for title, rows in courses.items():
            told = {row["mark"]: f"{row['mean']:.4g}" for row in rows}
            seen = [f"{rows[-1]['images']:,.0f}", f"{rows[-1]['minutes']:.1f}"]
            lines.append([title, *(told.get(mark, NOTHING) for mark in marks), *seen])
        unit = "minutes" if "minutes" in figures else "step"
        yield markdown([unit, *(f"{mark:g}" for mark in marks), "images seen", "minutes"], lines)
    yield ""
    yield f"![The first samples of each point, not chosen, of its first seed]({name}_samples.png)"


def courses_of(figures: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """For each point that was measured on its way: images, minutes and the main metric's mean, low and high.

    A place's `mark` is what it was measured at: minutes where it says so, else its step.
    """
    metric, found = main_metric(figures), {}
    for point in figures["points"]:
        courses = [run["course"] for run in point["runs"] if run.get("course")]
        rows = []
        at = [{place.get("mark", place["step"]): place for place in places} for places in courses]
        for mark in sorted(set.intersection(*map(set, at))) if at else ():
            places = [marked[mark] for marked in at]
            numbers = [place["metrics"][metric] for place in places]
            rows.append(
                {
                    "mark": mark,
                    "images": statistics.fmean(place["images"] for place in places),
                    "minutes": statistics.fmean(place["seconds"] for place in places) / 60,
                    "mean": statistics.fmean(numbers),
                    "low": min(numbers),
                    "high": max(numbers),
                }
            )
        if rows:
            found[point["name"]] = rows
    return found


def _length(figures: dict[str, Any]) -> str:
    if "minutes" in figures:
        return f"{figures['minutes']:g} minutes of training with steps"
    return f"{figures['steps']} steps"


def _row(point: dict[str, Any], metric: str, others: list[str], compared: dict[str, Any]) -> list[str]:
    found = compared.get(point["name"])
    failed = [run for run in point["runs"] if run["state"] != "done"]
    cells = [group_of(point["name"])[1], str(len(point["runs"]) - len(failed))]
    if found is None:
        numbers = values(point, metric)
        cells += [f"{statistics.fmean(numbers):.4g}" if numbers else NOTHING, NOTHING, "" if numbers else "failed"]
    else:
        spread = "" if found.spread is None else f" ± {found.spread:.2g}"
        sure = "" if math.isnan(found.low) else f" ({found.low:.2f} to {found.high:.2f})"
        ratio = "1" if found is next(iter(compared.values())) else f"{found.ratio:.2f}{sure}"
        verdict = f"**{found.verdict}**" if found.verdict == "better" else found.verdict
        cells += [f"{found.mean:.4g}{spread}", ratio, verdict]
    if failed and found is not None:
        cells[-1] += f" ({len(failed)} of {len(point['runs'])} failed)"
    rollbacks = sum(run["rollbacks"] for run in point["runs"])
    if rollbacks:
        cells[-1] += f" ({rollbacks} rollbacks)"
    for other in others:
        numbers = values(point, other)
        cells.append(f"{statistics.fmean(numbers):.3g}" if numbers else NOTHING)
    norm = point.get("gradient_norm")
    cells.append(f"{norm['mean']:.2g}, {norm['largest']:.2g}" if norm else NOTHING)
    seconds = [run["seconds"] for run in point["runs"] if run["state"] == "done"]
    return [*cells, str(point["gradients"] or ""), f"{statistics.fmean(seconds):.0f}" if seconds else NOTHING]
