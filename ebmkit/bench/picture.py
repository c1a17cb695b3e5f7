"""The report as a picture: where a step's time goes, and the ratios to the reference with their spread."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ebmkit.bench.running import Report
from ebmkit.bench.showing import ratio_text
from ebmkit.bench.timing import Ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "data": "#999999",
    "langevin": "#0072B2",
    "objective": "#56B4E9",
    "penalty": "#E69F00",
    "backward": "#D55E00",
    "optimizer": "#009E73",
    "other": "#DDDDDD",
}
"""Okabe and Ito's, which colour-blind readers tell apart."""
DARK = ("langevin", "backward")
"""Parts whose label is white."""
WIDE = 0.08
"""The share of the bar from which on a part is labelled in it."""


def draw(report: Report, path: Path) -> None:
    """Write the picture; the format follows from the ending."""
    from matplotlib.figure import Figure

    ratios = {
        name: part.ratio
        for name, part in (("training", report.training), ("sampling", report.sampling))
        if part is not None and part.ratio is not None
    }
    # Without pyplot: no display is looked for, and no figure stays in memory.
    panels = (report.training is not None) + bool(ratios)
    figure = Figure(figsize=(8, 0.6 + 2.0 * max(panels, 1)), layout="constrained")
    figure.suptitle(f"{report.recipe} on {report.machine['device_name']}, torch {report.machine['torch']}", fontsize=11)
    axes: list[Axes] = list(figure.subplots(max(panels, 1), 1, squeeze=False)[:, 0])
    if report.training is not None:
        _split(report.training.split, report.training.batch_size, axes[0])
    if ratios:
        _ratios(ratios, axes[-1])
    if not panels:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, report.no_reference or "only the data was measured", ha="center", wrap=True)
    figure.savefig(path, dpi=150)


def _split(split: dict[str, float], batch_size: int, axes: Axes) -> None:
    whole, left = sum(split.values()), 0.0
    for name, seconds in split.items():
        axes.barh([0], [1000 * seconds], left=left, color=COLOURS[name], label=f"{name} {seconds / whole:.0%}")
        if seconds / whole > WIDE:
            ink = "white" if name in DARK else "black"
            axes.text(left + 500 * seconds, 0, name, ha="center", va="center", fontsize=9, color=ink)
        left += 1000 * seconds
    axes.set_yticks([])
    axes.set_xlim(0, left)
    axes.set_xlabel(f"ms of a training step of ebmkit, batch {batch_size}")
    axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=8)


def _ratios(ratios: dict[str, Ratio], axes: Axes) -> None:
    names = list(ratios)
    values = [item.value for item in ratios.values()]
    below = [max(0.0, item.value - item.lowest) for item in ratios.values()]
    above = [max(0.0, item.highest - item.value) for item in ratios.values()]
    axes.barh(names, values, xerr=[below, above], color="#56B4E9", capsize=4, height=0.6)
    axes.axvline(1.0, color="black", linestyle="--", linewidth=1)
    furthest = max(item.highest for item in ratios.values())
    for place, item in enumerate(ratios.values()):
        axes.text(max(item.highest, item.value) + 0.02 * furthest, place, ratio_text(item), va="center", fontsize=9)
    axes.set_xlim(0, 1.35 * max(furthest, 1.0))
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the reference (dashed); lines: lowest and highest round")
