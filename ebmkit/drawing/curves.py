"""Training curves of one or several runs, from their metrics. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmkit.drawing import style
from ebmkit.errors import BadInput
from ebmkit.run_folder import RunFolder
from ebmkit.watchdog.journal import COUNTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS: dict[str, tuple[str, ...]] = {
    "loss": ("loss",),
    "energy": ("energy_data", "energy_samples"),
    "gradient norm (parameters)": ("gradient_norm",),
}
"""The core's metrics by panel, whose name is that of the axis. Others follow, by the last part of their names."""
THROUGHPUT = "images per second"
LAST = {"learning rate": ("learning_rate",), THROUGHPUT: ("images_per_second",)}
"""Panels at the end."""
HIDDEN = ("step", "images", "skipped_images", "contrastive_divergence")
WIDE_RANGE = 100.0
"""Where the largest of positive values is more than so many times the median, the axis is logarithmic."""


@dataclass(frozen=True)
class Curves:
    """Metrics by run, then by name: (steps, values)."""

    runs: dict[str, dict[str, tuple[list[int], list[float]]]]

    def numbers(self) -> dict[str, Any]:
        """What the picture shows, as JSON values: every point."""
        return {
            "runs": {
                run: {name: {"step": steps, "value": values} for name, (steps, values) in metrics.items()}
                for run, metrics in self.runs.items()
            }
        }


def read(folders: Sequence[Path]) -> Curves:
    """The metrics of run folders; raises `BadInput` for one without any."""
    runs: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for folder in folders:
        run = RunFolder(folder)
        run.require()
        metrics: dict[str, tuple[list[int], list[float]]] = {}
        for row in run.read_metrics():
            for name, value in row.items():
                if name not in HIDDEN and isinstance(value, int | float):
                    steps, values = metrics.setdefault(name, ([], []))
                    steps.append(int(row["step"]))
                    values.append(float(value))
        if not metrics:
            raise BadInput(f"{folder}: has no metrics yet (no complete line in {run.metrics.name})")
        if str(folder) in runs:
            raise BadInput(f"{folder}: is named twice")
        runs[str(folder)] = metrics
    return Curves(runs)


def panels_of(curves: Curves) -> dict[str, list[str]]:
    """The names of the metrics in each panel, in the order of the panels; only those that some run has."""
    present = dict.fromkeys(
        name
        for metrics in curves.runs.values()
        for name, (_, values) in metrics.items()
        if name not in COUNTED or any(values)
    )
    known = {name for names in (PANELS | LAST).values() for name in names}
    panels = {panel: list(names) for panel, names in PANELS.items()}
    for name in present:
        if name not in known:
            panels.setdefault(name.rpartition("/")[2].replace("_", " "), []).append(name)
    panels |= {panel: list(names) for panel, names in LAST.items()}
    there = {panel: [name for name in names if name in present] for panel, names in panels.items()}
    return {panel: names for panel, names in there.items() if names}


def draw(curves: Curves, title: str = "") -> Figure:
    """A panel for each kind of metric over the steps; the run is told by colour and marker, the metric by its line."""
    panels = panels_of(curves)
    columns = 2 if len(panels) > 1 else 1
    figure, all_axes = style.figure(columns, -(-len(panels) // columns), title=title, width=10.0, height=2.3)
    names_of_runs = _names(list(curves.runs))
    several = len(curves.runs) > 1
    for axes, (panel, names) in zip(all_axes, panels.items(), strict=False):
        for number, metrics in enumerate(curves.runs.values()):
            for kind, name in enumerate(names):
                if name in metrics:
                    look = _look(number, len(metrics[name][0])) if several else {"color": style.PALETTE[kind]}
                    axes.plot(*metrics[name], linestyle=style.LINES[kind], linewidth=1.2, **look)
        found = [metrics[name] for metrics in curves.runs.values() for name in names if name in metrics]
        shown = [value for _, values in found for value in values]
        if panel == THROUGHPUT:
            axes.set_ylim(bottom=0)
        elif min(shown) > 0 and max(shown) > WIDE_RANGE * sorted(shown)[len(shown) // 2]:
            axes.set_yscale("log")
        style.label(axes, x="training step", y=panel)
        if len(names) > 1:
            lines = [
                _line(linestyle=style.LINES[kind], color=style.BLACK if several else style.PALETTE[kind])
                for kind in range(len(names))
            ]
            axes.legend(
                lines, [name.replace("_", " ") for name in names], loc="lower left", bbox_to_anchor=(0.0, 1.0),
                ncols=2, frameon=False, fontsize=style.SMALL,
            )  # fmt: skip
    if several:
        runs = [_line(**_look(number, 1)) for number in range(len(curves.runs))]
        figure.legend(runs, names_of_runs, loc="outside lower center", ncols=3, frameon=False, fontsize=style.SMALL)
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    return figure


def _look(run: int, points: int) -> dict[str, Any]:
    """Colour and marker of a run; some markers on each line, at other places for each run."""
    every = max(1, points // 8)
    return {
        "color": style.PALETTE[run % len(style.PALETTE)],
        "marker": style.MARKERS[run % len(style.MARKERS)],
        "markersize": 4,
        "markevery": (run * every // 3 % every, every),
    }


def _line(**look: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([0, 1], [0, 0], **(look | {"markevery": None}))


def _names(folders: list[str]) -> list[str]:
    """The last parts of the paths, if they differ."""
    last = [Path(folder).absolute().name for folder in folders]
    return last if len(set(last)) == len(last) else folders
