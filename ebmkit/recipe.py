"""The recipe: a TOML file that names the parts of a run and their options."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from ebmkit import overrides as overriding
from ebmkit import toml
from ebmkit.binder import Binder, quote, show
from ebmkit.errors import BadInput, RecipeError
from ebmkit.interfaces import BaseOptions, Context
from ebmkit.options import DataOptions, EngineOptions, FastOptions, OptimizerOptions, TrainOptions
from ebmkit.printable import one_line
from ebmkit.registry import Registry, default_registry, suggest
from ebmkit.watchdog.options import WatchdogOptions

SECTIONS: Mapping[str, type[BaseOptions]] = {
    "data": DataOptions,
    "optimizer": OptimizerOptions,
    "engine": EngineOptions,
    "fast": FastOptions,
    "train": TrainOptions,
    "watchdog": WatchdogOptions,
}
PARTS = ("energy", "sampler", "buffer", "objective")
LISTS: Mapping[str, str] = {"regularizers": "regularizer", "trackers": "tracker"}
"""Keys that hold any number of parts, and their kind."""
KEYS = ("seed", "time_steps", *SECTIONS, *PARTS, *LISTS)
MAX_BYTES = 1_000_000
MAX_SEED = 2**63 - 1
MAX_TIME_STEPS = 100_000
TOO_DEEP = "nested too deeply; this is no recipe"
SHIPPED = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Part:
    """A component that a recipe names, with its options."""

    kind: str
    component: type[Any]
    options: Any

    @property
    def name(self) -> str:
        """The component's name, the recipe's `use`."""
        return str(self.component.name)

    def build(self, context: Context) -> Any:
        """A new instance of the component."""
        return self.component(self.options, context)

    def to_table(self) -> dict[str, Any]:
        """The part as it stands in a recipe, every option written out."""
        return {"use": self.name, **_table(self.options)}


@dataclass(frozen=True)
class Recipe:
    """A recipe whose every key is bound, typed and within bounds."""

    name: str
    seed: int
    time_steps: int
    data: DataOptions
    energy: Part
    sampler: Part
    buffer: Part
    objective: Part
    regularizers: tuple[Part, ...]
    trackers: tuple[Part, ...]
    optimizer: OptimizerOptions
    engine: EngineOptions
    fast: FastOptions
    train: TrainOptions
    watchdog: WatchdogOptions

    @property
    def parts(self) -> dict[str, Part]:
        """Every part by its dotted path."""
        single = {name: getattr(self, name) for name in PARTS}
        several = {f"{key}.{i}": part for key in LISTS for i, part in enumerate(getattr(self, key))}
        return single | several

    def context(self, device: str = "cpu", rank: int = 0, world_size: int = 1) -> Context:
        """The context in which the parts are built."""
        return Context(self.data.shape, self.time_steps, device, rank, world_size, self.seed)

    def to_table(self) -> dict[str, Any]:
        """The resolved recipe, every default written out: plain values that `from_table` takes back."""
        table: dict[str, Any] = {"seed": self.seed, "time_steps": self.time_steps}
        table |= {name: _table(getattr(self, name)) for name in SECTIONS}
        table |= {name: getattr(self, name).to_table() for name in PARTS}
        table |= {key: [part.to_table() for part in getattr(self, key)] for key in LISTS}
        return table

    def to_toml(self) -> str:
        """The resolved recipe as TOML."""
        return tomli_w.dumps(self.to_table())


def load(source: str | Path, set_values: Mapping[str, Any] | None = None, registry: Registry | None = None) -> Recipe:
    """The recipe of a TOML file, or of a shipped recipe's bare name; raises `BadInput` or `RecipeError`."""
    path = find(source)
    return from_table(read_toml(path), str(source), path.stem, set_values, registry)


def find(source: str | Path) -> Path:
    """The file that `source` means: a path, or the name of a recipe that ships with ebmkit."""
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    except OSError as error:
        raise BadInput(f"{show(str(source))}: cannot be read: {error.strerror}") from error
    else:
        if stat.S_ISREG(mode):
            return path
        what = "a folder" if stat.S_ISDIR(mode) else "a special file"
        raise BadInput(f"{source}: is {what}, not a recipe file")
    if "=" in path.name:
        raise BadInput(f"{show(str(source))}: is no recipe file; name the recipe first, then --set key=value")
    shipped = shipped_recipes()
    if str(source) in shipped:
        return shipped[str(source)]
    hint = suggest(path.stem, shipped)
    raise BadInput(f"{one_line(str(source))}: no such recipe file{hint or '; shipped recipes: ' + ', '.join(shipped)}")


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with ebmkit, by name."""
    # In a wheel they lie inside the package, in a checkout (and an editable install) beside it.
    folder = SHIPPED if SHIPPED.is_dir() else SHIPPED.parent.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's table; raises `BadInput` that names the line of a syntax error."""
    try:
        with path.open("rb") as file:
            # It may have grown since, and a special file has no size.
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise BadInput(f"{path}: larger than {MAX_BYTES:,} bytes; this is no recipe")
        return toml.loads(data.decode().replace("\r\n", "\n").replace("\r", "\n"))
    except toml.TooDeep as error:
        raise BadInput(f"{path}: {TOO_DEEP}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not valid TOML: {one_line(str(error), 300)}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start})") from error
    except ValueError as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error


def from_table(
    table: Mapping[str, Any],
    source: str,
    name: str,
    set_values: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> Recipe:
    """Bind a recipe's table; raises `RecipeError` with all of its problems."""
    changes = dict(set_values or {})
    if "data.shards" in changes:
        # The recipe's command makes the recipe's shards, not these.
        changes.setdefault("data.make", None)
    try:
        return _bind(overriding.apply(table, changes), source, name, registry or default_registry())
    except RecursionError as error:
        raise BadInput(f"{source}: {TOO_DEEP}") from error


def _bind(table: Mapping[str, Any], source: str, name: str, registry: Registry) -> Recipe:
    binder = Binder(registry)
    for key in table:
        if key not in KEYS:
            binder.complain(quote(key), "unknown key" + suggest(key, KEYS))
    seed = _whole_number(binder, table, "seed", 0, MAX_SEED, default=0)
    time_steps = _whole_number(binder, table, "time_steps", 1, MAX_TIME_STEPS)
    sections = {key: _section(binder, table, key, model) for key, model in SECTIONS.items()}
    parts = {kind: _part(binder, table, kind) for kind in PARTS}
    lists = {key: _parts(binder, table, key, kind) for key, kind in LISTS.items()}
    if binder.problems:
        raise RecipeError(source, binder.problems)
    return Recipe(
        name=name,
        seed=seed,
        time_steps=time_steps,
        **lists,  # type: ignore[arg-type]
        **sections,
        **parts,  # type: ignore[arg-type]
    )


def _table(options: BaseOptions) -> dict[str, Any]:
    # TOML has no null: an option that is None is written by leaving it out, and None is then its default.
    return {key: value for key, value in options.model_dump(mode="json").items() if value is not None}


def _whole_number(
    binder: Binder, table: Mapping[str, Any], key: str, low: int, high: int, default: int | None = None
) -> int:
    value = table.get(key, default)
    if value is None:
        binder.complain(key, "is required")
    elif not isinstance(value, int) or isinstance(value, bool):
        binder.complain(key, f"must be a whole number, not {show(value)}")
    elif not low <= value <= high:
        binder.complain(key, f"must be between {low} and {high}, not {show(value)}")
    else:
        return value
    return low


def _section(binder: Binder, table: Mapping[str, Any], key: str, model: type[BaseOptions]) -> Any:
    values = binder.table(table.get(key, {}), key)
    return None if values is None else binder.options(model, values, key)


def _part(binder: Binder, table: Mapping[str, Any], kind: str) -> Part | None:
    found = binder.component(kind, table.get(kind, {}), kind)
    return None if found is None else Part(kind, *found)


def _parts(binder: Binder, table: Mapping[str, Any], key: str, kind: str) -> tuple[Part, ...]:
    value = table.get(key, [])
    if not isinstance(value, list | tuple):
        binder.complain(key, f"must be a list of tables ([[{key}]]), not {show(value)}")
        return ()
    found = [binder.component(kind, item, f"{key}.{i}") for i, item in enumerate(value)]
    return tuple(Part(kind, *item) for item in found if item is not None)
