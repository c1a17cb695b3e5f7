"""The picture of `growth.py`: small multiples on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

if TYPE_CHECKING:
    from growth import Growth

POINT, LINE, INK = "#0072B2", "#D55E00", "#333333"
"""Blue and vermilion stay apart for colour-blind eyes, and in grey."""
COLUMNS = 4


def draw(found: Sequence[Growth], path: Path) -> None:
    """One panel for each series: measured points, those of the fit filled, and the fitted line with its exponent."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    lines = math.ceil(len(found) / COLUMNS)
    figure, axes = plt.subplots(
        lines, COLUMNS, figsize=(3.1 * COLUMNS, 3.0 * lines), layout="constrained", squeeze=False
    )
    for axis, growth in zip(axes.flat, found, strict=False):
        panel(axis, growth)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def panel(axis: Any, growth: Growth) -> None:
    """A series."""
    sizes, cost = growth.sizes, [1000 * value for value in growth.seconds]
    first = growth.fitted_from
    low, high = ([1000 * ends[side] for ends in growth.spread] for side in (0, 1))
    bars = [[c - a for c, a in zip(cost, low, strict=True)], [b - c for c, b in zip(cost, high, strict=True)]]
    axis.errorbar(sizes, cost, bars, fmt="none", ecolor=POINT, elinewidth=1, capsize=2)
    axis.plot(sizes[:first], cost[:first], "o", color=POINT, markerfacecolor="white")
    axis.plot(sizes[first:], cost[first:], "o", color=POINT)
    axis.plot(*curve(growth), "-", color=LINE, linewidth=1.8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    bottom, top = min(low), max(high)
    # At least two decades, so that the noise of a flat cost does not fill the panel.
    room = max(10.0, (top / bottom) ** 0.5 * 1.3)
    centre = (top * bottom) ** 0.5
    axis.set_ylim(centre / room, centre * room)
    axis.set_title(growth.title, fontsize=10, color=INK)
    axis.set_xlabel(growth.unit, fontsize=9)
    axis.set_ylabel("ms of one CPU thread", fontsize=9)
    told = f"exponent {growth.exponent:z.2f}\n(expected {growth.expected:g})"
    axis.text(0.05, 0.95, told, transform=axis.transAxes, va="top", fontsize=9, color=LINE)
    axis.tick_params(labelsize=8)
    axis.minorticks_off()
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def curve(growth: Growth) -> tuple[list[float], list[float]]:
    """The fitted power law over the points of the fit, in milliseconds, on top of the fixed part."""
    first, sizes, base = growth.fitted_from, growth.sizes, (growth.sizes[0], growth.seconds[0])
    size0, cost0 = base if growth.expected else (0, 0.0)
    points = list(zip(sizes, growth.seconds, strict=True))[first:]
    offset = sum(math.log(c - cost0) - growth.exponent * math.log(n - size0) for n, c in points) / len(points)
    ends = sizes[first] - size0, sizes[-1] - size0
    steps = [ends[0] * (ends[1] / ends[0]) ** (place / 40) for place in range(41)]
    return [n + size0 for n in steps], [1000 * (cost0 + math.exp(offset) * n**growth.exponent) for n in steps]
