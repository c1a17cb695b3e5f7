"""The recipe that a resumed run goes on with: its own, with this call's `--set` values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ebmkit import recipe as recipes
from ebmkit.errors import BadInput
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder


def resumed_recipe(path: Path, run: RunFolder, set_values: Mapping[str, Any], say: Callable[[str], None]) -> Recipe:
    """The run's recipe.toml with `set_values`; raises `BadInput` for changes that its checkpoint does not fit."""
    table = recipes.read_toml(run.recipe)
    # Without trackers: one that is not installed any more may be left out of the resumed run.
    own = recipes.from_table({**table, "trackers": []}, str(run.recipe), path.stem)
    recipe = recipes.from_table(table, str(run.recipe), path.stem, set_values)
    before, after = fixed(own), fixed(recipe)
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if changed:
        raise BadInput(
            f"--set {', '.join(changed)}: a resumed run cannot change this, its checkpoint would not fit; "
            "start a new run with another --run-dir"
        )
    _mention_differences(path, own, set_values, say)
    return recipe


def fixed(recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint depends on, by dotted key: the image shape, T, energy, buffer and structural regularizers."""
    table = recipe.to_table()
    kept = {"time_steps": recipe.time_steps, "energy": table["energy"], "buffer": table["buffer"]}
    kept["data"] = {key: table["data"][key] for key in ("image_size", "channels")}
    structural = [part.to_table() for part in recipe.regularizers if part.component.changes_state_dict]
    return flat({**kept, "regularizers": {item["use"]: item for item in structural}})


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested tables as `{dotted key: value}`."""
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}" if path else key).items()}
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f"{path}.{i}").items()}
    return {path: list(value) if isinstance(value, tuple) else value}


def _mention_differences(path: Path, own: Recipe, set_values: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """A recipe file that was edited since does not change a run; say so instead of ignoring it in silence."""
    try:
        given = recipes.from_table({**recipes.read_toml(path), "trackers": []}, str(path), path.stem)
    except BadInput:
        return
    before, now = flat(own.to_table()), flat(given.to_table())
    different = sorted(
        key for key in before.keys() | now.keys() if key not in set_values and before.get(key) != now.get(key)
    )
    if different:
        shown = ", ".join(different[:6]) + (", ..." if len(different) > 6 else "")
        say(f"note: the run keeps its own recipe, with the --set values of its start; {path} differs in {shown}")
