"""The one style of all pictures: colours that colour-blind readers tell apart, lines that print in grey."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmkit.errors import BadInput
from ebmkit.files import write_atomically, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
GREY, PALE = "#999999", "#DDDDDD"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
"""Okabe and Ito's colours in the order in which series take them; their yellow is too pale for lines on white."""
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 3)))
"""Line styles in the same order: what tells the series apart in grey."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
ROLES = {"data": BLUE, "samples": VERMILLION, "noise": GREY}
"""Colours of real images, samples and noise in every picture."""

PICTURES = (".png", ".svg", ".pdf")
DPI = 150
WIDTH = 8.0
"""Inches; 1,200 pixels in a PNG."""
SMALL, TEXT, TITLE = 8, 9, 11
"""Sizes of print in points."""


def figure(
    columns: int = 1,
    rows: int = 1,
    *,
    title: str = "",
    width: float = WIDTH,
    height: float = 2.6,
    heights: Sequence[float] | None = None,
    share_x: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, row by row; `width` of the whole and `height` of a row in inches.

    `heights` are those of the rows one by one.

    It uses no pyplot: no display is looked for, and no figure stays in memory.
    """
    from matplotlib.figure import Figure

    heights = heights or [height] * rows
    drawn = Figure(figsize=(width, sum(heights) + (0.4 if title else 0.0)), dpi=DPI, layout="constrained")
    if title:
        # A recipe's name may come from anyone, and is no formula.
        drawn.suptitle(title, fontsize=TITLE, parse_math=False)
    panels: list[Axes] = list(
        drawn.subplots(rows, columns, squeeze=False, sharex=share_x, height_ratios=heights).ravel()
    )
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=SMALL)
    return drawn, panels


def label(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Name the axes, with units, and the panel; what is left out stays as it is."""
    if x:
        axes.set_xlabel(x, fontsize=TEXT)
    if y:
        axes.set_ylabel(y, fontsize=TEXT)
    if title:
        axes.set_title(title, fontsize=TEXT, loc="left")


def legend(axes: Axes, entries: tuple[list[Any], list[str]] | None = None) -> None:
    """A legend to the right of the panel, where it hides no data; of its own lines, or of these (handles, labels)."""
    handles, labels = entries or axes.get_legend_handles_labels()
    axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=SMALL, borderaxespad=0.0
    )


def series(number: int) -> dict[str, Any]:
    """Colour and line style of the `number`-th line of a panel; they repeat after so many that none can be read."""
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": LINES[number % len(LINES)], "linewidth": 1.5}


def check_out(path: Path, endings: Sequence[str] = PICTURES) -> None:
    """Refuse, before anything is computed, what `save` could not write: raises `BadInput`."""
    if path.suffix.lower() not in endings:
        raise BadInput(f"{path}: a picture of this kind ends in {', '.join(endings)}")
    for file in (path, numbers_of(path)):
        if file.exists() or file.is_symlink():
            raise BadInput(f"{file}: already exists and is not overwritten; choose another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{path.parent}: cannot be made: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise BadInput(f"{path}: the folder {path.parent} cannot be written")


def numbers_of(path: Path) -> Path:
    """Where the numbers of the picture `path` stand: beside it, with the ending .json."""
    return path.with_suffix(".json")


def save(figure: Figure, path: Path, numbers: Mapping[str, Any]) -> None:
    """Write the picture, in the format of its ending, and its `numbers` beside it; raises `BadInput` as `check_out`."""
    check_out(path)
    save_numbers(path, numbers)
    write_atomically(path, lambda temporary: figure.savefig(temporary))


def save_numbers(path: Path, numbers: Mapping[str, Any]) -> None:
    """Write the numbers of the picture `path` as strict JSON: what is not finite becomes null."""
    # In lines a person can compare: one for each key.
    lines = [f"  {json.dumps(key)}: {json.dumps(_plain(value), allow_nan=False)}" for key, value in numbers.items()]
    write_text(numbers_of(path), "{\n" + ",\n".join(lines) + "\n}\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
