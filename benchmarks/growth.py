"""How the cost grows with T, K, image size, batch, buffer and number of shards: measured exponents a of cost ~ n^a.

    python benchmarks/growth.py --out docs/benchmarks

A small network on the CPU, everything else fixed. What is timed is the processor time of one thread, so that other work
on the machine hardly counts; each point is the median of the rounds, and each round visits all points of a series. The
exponent is the slope of a least-squares line through the logarithms of the upper points (filled in the picture). Where
a cost should grow it is fitted without its fixed part, what comes on top of the cost at the smallest size. Writes
growth.json, growth.png and the measured part of growth.md into the folder.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from growth_picture import draw
from growth_series import SERIES, Series
from pages import markdown, write_measured
from rich.console import Console
from rich.table import Table

import ebmkit

SHORTEST = 0.02
"""Seconds of a timing; shorter work is repeated that often."""
TOLERANCE = 0.15
"""By how much an exponent may exceed the expected one before it is called out."""


@dataclass(frozen=True)
class Growth:
    """The measured cost `seconds[i]` at `sizes[i]`, and the exponent over the points from number `fitted_from` on."""

    title: str
    unit: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    spread: tuple[tuple[float, float], ...]
    fitted_from: int
    exponent: float
    expected: float

    @property
    def fits(self) -> bool:
        """Whether it grows no faster than it should."""
        return self.exponent <= self.expected + TOLERANCE


def main() -> None:
    """Read the command line, measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to write; only the table is printed otherwise"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(series, arguments.rounds) for series in SERIES]
    Console(width=120).print(rich_table(found))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        about = {"ebmkit": ebmkit.__version__, "torch": torch.__version__, "rounds": arguments.rounds}
        plain = {**about, "series": [asdict(growth) for growth in found]}
        (arguments.out / "growth.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        write_measured(arguments.out / "growth.md", markdown(HEADER, rows(found)))
        draw(found, arguments.out / "growth.png")


def measure(series: Series, rounds: int) -> Growth:
    """All points of a series, visited in turn."""
    with ExitStack() as stack:
        works = [stack.enter_context(series.prepare(size)) for size in series.sizes]
        repeats = [max(1, math.ceil(SHORTEST / warm(work))) for work in works]
        times: list[list[float]] = [[] for _ in works]
        for number in range(rounds):
            print(f"{series.title}: round {number + 1} of {rounds}", file=sys.stderr)  # noqa: T201
            for place, work in enumerate(works):
                times[place].append(seconds(work, repeats[place]))
    middle = [median(values) for values in times]
    spread = tuple((min(values), max(values)) for values in times)
    sizes = series.sizes
    points = list(zip(sizes, middle, strict=True))[series.fitted_from :]
    if series.expected:
        points = [(size - sizes[0], value - middle[0]) for size, value in points]
    return Growth(
        series.title,
        series.unit,
        sizes,
        tuple(middle),
        spread,
        series.fitted_from,
        exponent(points),
        series.expected,
    )


def warm(work: Callable[[], Any]) -> float:
    """Seconds of the second call."""
    work()
    return max(seconds(work, 1), 1e-6)


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Processor time of one call."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope of log cost over log size."""
    xs, ys = ([math.log(value) for value in values] for values in zip(*points, strict=True))
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / sum((x - x_mean) ** 2 for x in xs)


HEADER = ("cost", "of", "smallest", "largest", "exponent", "expected", "")


def rows(found: Sequence[Growth]) -> Iterator[tuple[str, ...]]:
    """The table's cells."""
    for growth in found:
        points = zip(growth.sizes, growth.seconds, strict=True)
        first, *_, last = (f"{size:,}: {1000 * value:.3g} ms" for size, value in points)
        told = "" if growth.fits else "grows faster"
        yield growth.title, growth.unit, first, last, f"{growth.exponent:z.2f}", f"{growth.expected:g}", told


def rich_table(found: Sequence[Growth]) -> Table:
    """For the terminal."""
    table = Table(*HEADER, box=None, header_style="bold")
    for row in rows(found):
        table.add_row(*row)
    return table


if __name__ == "__main__":
    main()
