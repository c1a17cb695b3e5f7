"""The report as a picture: where a step's time goes, and the ratios to the reference with their spread."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ebmkit.bench.running import Report
from ebmkit.bench.showing import ratio_text
from ebmkit.bench.timing import Ratio
from ebmkit.drawing import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "data": style.GREY,
    "langevin": style.BLUE,
    "objective": style.SKY,
    "penalty": style.ORANGE,
    "backward": style.VERMILLION,
    "optimizer": style.GREEN,
    "other": style.PALE,
}
DARK = ("langevin", "backward")
"""Parts whose label is white."""
WIDE = 0.08
"""The share of the bar from which on a part is labelled in it."""


def draw(report: Report, path: Path) -> None:
    """Write the picture; the format follows from the ending."""
    ratios = {
        name: part.ratio
        for name, part in (("training", report.training), ("sampling", report.sampling))
        if part is not None and part.ratio is not None
    }
    panels = (report.training is not None) + bool(ratios)
    title = f"{report.recipe} on {report.machine['device_name']}, torch {report.machine['torch']}"
    figure, axes = style.figure(rows=max(panels, 1), title=title, height=2.1)
    if report.training is not None:
        _split(report.training.split, report.training.batch_size, axes[0])
    if ratios:
        _ratios(ratios, axes[-1])
    if not panels:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, report.no_reference or "only the data was measured", ha="center", wrap=True)
    figure.savefig(path)


def _split(split: dict[str, float], batch_size: int, axes: Axes) -> None:
    whole, left = sum(split.values()), 0.0
    for name, seconds in split.items():
        axes.barh([0], [1000 * seconds], left=left, color=COLOURS[name], label=f"{name} {seconds / whole:.0%}")
        if seconds / whole > WIDE:
            ink = "white" if name in DARK else "black"
            axes.text(left + 500 * seconds, 0, name, ha="center", va="center", fontsize=style.TEXT, color=ink)
        left += 1000 * seconds
    axes.set_yticks([])
    axes.set_xlim(0, left)
    axes.set_xlabel(f"ms of a training step of ebmkit, batch {batch_size}")
    axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=style.SMALL)


def _ratios(ratios: dict[str, Ratio], axes: Axes) -> None:
    names = list(ratios)
    values = [item.value for item in ratios.values()]
    below = [max(0.0, item.value - item.lowest) for item in ratios.values()]
    above = [max(0.0, item.highest - item.value) for item in ratios.values()]
    axes.barh(names, values, xerr=[below, above], color=style.SKY, capsize=4, height=0.6)
    axes.axvline(1.0, color="black", linestyle="--", linewidth=1)
    furthest = max(item.highest for item in ratios.values())
    for place, item in enumerate(ratios.values()):
        end = max(item.highest, item.value) + 0.02 * furthest
        axes.text(end, place, ratio_text(item), va="center", fontsize=style.TEXT)
    axes.set_xlim(0, 1.35 * max(furthest, 1.0))
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the reference (dashed); lines: lowest and highest round")
