"""Pictures of an experiment: what each choice changes, and what its samples look like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from benchmarks.results.comparing import compare
from benchmarks.results.page import called, courses_of, group_of, main_metric
from torch.nn.functional import pad

import ebmkit
from ebmkit.sampling import to_uint8

BETTER, WORSE, SAME, INK = "#0072B2", "#D55E00", "#999999", "#333333"
"""Blue and vermilion stay apart for colour-blind eyes, and in grey."""
SHOWN = 12
COARSE, FINE = (0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50), (0.8, 0.9, 1, 1.1, 1.2, 1.3)
"""Ticks of ratios, and those of experiments whose rows differ little."""
COLORS = {"better": BETTER, "worse": WORSE, "": SAME}


def draw_ratios(figures: dict[str, Any], path: Path) -> None:
    """A line for each point: the ratio of its main metric to that of the first, with the interval."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    metric = main_metric(figures)
    compared = compare(figures["points"], metric)
    names = [point["name"] for point in figures["points"] if point["name"] in compared][1:]
    if not names:
        return
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.2 * len(names)), layout="constrained")
    for place, name in enumerate(names):
        found = compared[name]
        color = COLORS[found.verdict]
        axis.plot([found.low, found.high], [place, place], "-", color=color, linewidth=1.5)
        axis.plot([found.ratio], [place], "o", color=color, markersize=4)
    axis.axvline(1, color=INK, linewidth=0.8)
    axis.set_xscale("log")
    coarse, fine = ([tick for tick in ticks if _inside(tick, compared.values())] for ticks in (COARSE, FINE))
    ticks = coarse if len(coarse) > 2 else fine
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel(f"{called(metric)}, ratio to the first point (lower is better)", fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_courses(figures: dict[str, Any], path: Path) -> None:
    """The main metric while runs train, against images seen and minutes: the mean over seeds, and their range.

    Nothing is drawn where no run was measured on its way.
    """
    found = courses_of(figures)
    if not found:
        return
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    metric = main_metric(figures)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for axis, key, label in zip(axes, ("images", "minutes"), ("images seen", "minutes of training"), strict=True):
        for place, (name, rows) in enumerate(found.items()):
            color = f"C{place}"
            axis.plot(
                [row[key] for row in rows], [row["mean"] for row in rows], "o-", color=color, markersize=3, label=name
            )
            axis.fill_between(
                [row[key] for row in rows],
                [row["low"] for row in rows],
                [row["high"] for row in rows],
                color=color,
                alpha=0.2,
                linewidth=0,
            )
        # An estimate may be below 0, which a logarithmic axis does not have.
        if figures["floor"].get(metric, 0) > 0:
            axis.axhline(figures["floor"][metric], color=INK, linewidth=0.8, linestyle=":")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(label, fontsize=9)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(called(metric), fontsize=9)
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _inside(tick: float, found: Any) -> bool:
    ends = [end for item in found for end in (item.low, item.ratio, item.high) if math.isfinite(end)]
    return min(ends) / 1.1 <= tick <= max(ends) * 1.1


def draw_samples(figures: dict[str, Any], runs: Mapping[str, Path], path: Path) -> None:
    """A row of samples for each point, drawn from its first finished run with seed 0."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    columns = 1 if len(runs) <= 16 else 2
    lines = -(-len(runs) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(6.2 * columns, 0.36 * lines), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, folder) in zip(axes.T.flat, runs.items(), strict=False):
        images = to_uint8(ebmkit.load(folder / "model.safetensors").sample(SHOWN, seed=0))
        # A white column between them.
        strip = pad(images, (0, 1), value=255).permute(2, 0, 3, 1).flatten(1, 2)
        axis.imshow(strip.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        group, choice = group_of(name)
        axis.text(
            -0.01,
            0.5,
            f"{group}: {choice}" if group else choice,
            transform=axis.transAxes,
            ha="right",
            va="center",
            fontsize=7,
            color=INK,
        )
    # Whole labels, however long.
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
