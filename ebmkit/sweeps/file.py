"""The sweep file: a base recipe, the values to try, seeds, and how to evaluate."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ebmkit import recipe as recipes
from ebmkit.binder import Binder, show
from ebmkit.errors import BadInput, Problem, RecipeError
from ebmkit.interfaces import BaseOptions
from ebmkit.recipe import MAX_SEED
from ebmkit.registry import default_registry, suggest

MOST_RUNS = 10_000


class SweepOptions(BaseOptions):
    """The keys of a sweep file."""

    recipe: str = Field(
        min_length=1, description="The base: a shipped recipe's name, or a file, relative to the sweep file."
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...], Field(min_length=1)] | None = Field(
        default=None, description="Each point is trained once with each of these; the base recipe's own by default."
    )
    set: dict[str, Any] = Field(default={}, description="Values that all points have.")
    grid: dict[str, Any] = Field(default={}, description="For each key a list of values; the points are all choices.")
    points: tuple[dict[str, Any], ...] = Field(
        default=(), description="The points one by one, where they are no grid; `name` names a point's folder."
    )
    evaluate: dict[str, Any] = Field(
        default={}, description="Options of `ebmkit evaluate`, with which each run is measured: count, seed, data."
    )


@dataclass(frozen=True)
class Point:
    """One choice of values, by dotted key; `name` is the file's own name for it, if it has one."""

    values: Mapping[str, Any]
    name: str | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep file that has been read: what is common to all points, and the points."""

    name: str
    source: str
    recipe: str
    common: Mapping[str, Any]
    points: tuple[Point, ...]
    seeds: tuple[int, ...] | None
    evaluate: Mapping[str, Any]


def shipped_sweeps() -> dict[str, Path]:
    """The sweeps that come with ebmkit, by name."""
    found = next(iter(recipes.shipped_recipes().values()), None)
    return {} if found is None else {path.stem: path for path in sorted((found.parent / "sweeps").glob("*.toml"))}


def find_sweep(source: str | Path) -> Path:
    """The file that `source` means: a path, or the name of a sweep that ships with ebmkit; raises `BadInput`."""
    path, shipped = Path(source), shipped_sweeps()
    if path.is_file():
        return path
    if str(source) in shipped:
        return shipped[str(source)]
    hint = suggest(path.stem, shipped) or f"; shipped sweeps: {', '.join(shipped)}"
    raise BadInput(f"{show(str(source))}: no such sweep file{hint}")


def load_sweep(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Sweep:
    """Read a sweep file; raises `BadInput`, and `RecipeError` with all of its problems.

    `overrides` are values of all points, as in `[set]`, which take the place of the file's own.
    """
    path = find_sweep(source)
    binder = Binder(default_registry())
    options = binder.options(SweepOptions, recipes.read_toml(path), "sweep")
    if options is None:
        # The file's own keys are at its top.
        raise RecipeError(str(source), [Problem(p.path.removeprefix("sweep."), p.message) for p in binder.problems])
    problems: list[Problem] = []
    if options.grid and options.points:
        problems.append(Problem("points", "a sweep has a [grid] or [[points]], not both"))
    overrides = overrides or {}
    common = {key: value for key, value in flat_values(options.set).items() if not _touches(key, overrides)} | {
        **overrides
    }
    points = tuple(_of_grid(options.grid, problems) if options.grid else _of_list(options.points)) or (Point({}),)
    if "seed" in common or any("seed" in point.values for point in points):
        problems.append(Problem("seed", "seeds are given by `seeds = [0, 1]`, not as a value"))
    for key in overrides:
        if any(_touches(key, point.values) for point in points):
            problems.append(Problem(f"--set {key}", "this is a value that the sweep varies; change it in the file"))
    varied = sorted({key for point in points for key in point.values})
    for key in common.keys() - overrides.keys():
        for other in (found for found in varied if found != key and _touches(key, [found])):
            problems.append(Problem(f"set.{key}", f"a point has {other}; one is a part of the other: give both there"))
    seen: set[str] = set()
    for number, point in enumerate(points):
        same = repr(sorted(point.values.items()))
        if same in seen:
            problems.append(Problem(f"points.{number}", "the same values as an earlier point"))
        seen.add(same)
    if options.seeds and len(set(options.seeds)) < len(options.seeds):
        problems.append(Problem("seeds", "the same seed twice"))
    if len(points) * len(options.seeds or (0,)) > MOST_RUNS:
        problems.append(Problem("grid", f"more than {MOST_RUNS:,} runs"))
    if problems:
        raise RecipeError(str(source), problems)
    beside = path.parent / options.recipe
    base = str(beside) if beside.is_file() else options.recipe
    return Sweep(path.stem, str(source), base, common, points, options.seeds, options.evaluate)


def _touches(key: str, others: Iterable[str]) -> bool:
    """Whether a dotted key is one of the others, or a part of one, or holds one."""
    return any(f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.") for other in others)


def flat_values(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted keys of nested tables; a table that names a part (`use`) is a value."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value and "use" not in value:
            found |= flat_values(value, where)
        else:
            found[where] = value
    return found


def _of_grid(grid: Mapping[str, Any], problems: list[Problem]) -> Iterator[Point]:
    flat = flat_values(grid)
    for key, values in flat.items():
        if not isinstance(values, list | tuple) or not values:
            problems.append(Problem(f"grid.{key}", f"must be a list of values to try, not {show(values)}"))
    if problems:
        return
    # One at a time: a product may be longer than anyone can wait for.
    for values in itertools.islice(itertools.product(*flat.values()), MOST_RUNS + 1):
        yield Point(dict(zip(flat, values, strict=True)))


def _of_list(points: tuple[dict[str, Any], ...]) -> Iterator[Point]:
    for table in points:
        values = dict(table)
        name = values.pop("name", None)
        yield Point(flat_values(values), None if name is None else str(name))
