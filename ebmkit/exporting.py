"""From a checkpoint to a model file, without the engine that trained it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from ebmkit import recipe as recipes
from ebmkit.bounded import bounded_building
from ebmkit.checkpoint import SHARED
from ebmkit.energy_model import EnergyModel
from ebmkit.errors import BadInput
from ebmkit.model import save_model
from ebmkit.pipeline import build_energy, build_regularizers
from ebmkit.printable import one_line
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.state_file import load_state


class Averaged(NamedTuple):
    """What a checkpoint holds of the model: the network with its EMA weights."""

    energy: EnergyModel
    recipe: Recipe
    images_seen: int
    step: int


def export_model(folder: str | Path, out: str | Path, step: int | None = None) -> int:
    """Write the EMA weights of a run's checkpoint (the newest, or that of `step`) as a model file; returns its step.

    Raises `BadInput` where there is no such run or checkpoint, and where `out` exists.
    """
    run, out = RunFolder(Path(folder)), Path(out)
    if out.exists():
        raise BadInput(f"{out}: already exists and is never overwritten; choose another name by --out")
    averaged = averaged_model(run, step)
    if not out.absolute().parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}")
    save_model(out, averaged.energy, averaged.recipe, averaged.images_seen, averaged.step)
    return averaged.step


def averaged_model(run: RunFolder, step: int | None = None) -> Averaged:
    """The EMA weights of a run's checkpoint, the newest, or that of `step`; raises `BadInput` where there is none."""
    run.require()
    found = dict(run.complete_checkpoints())
    if not found:
        raise BadInput(f"{run.folder}: has no checkpoint yet")
    chosen = max(found) if step is None else step
    if chosen not in found:
        raise BadInput(f"{run.folder}: has no checkpoint of step {step}; there are {', '.join(map(str, found))}")
    recipe = recipes.from_table(recipes.read_toml(run.recipe), str(run.recipe), _name(run))
    shared = load_state(found[chosen] / SHARED)
    kept, images_seen = shared.get("ema"), shared.get("images_seen")
    if not (isinstance(kept, dict) and isinstance(images_seen, int) and all(map(torch.is_tensor, kept.values()))):
        raise BadInput(f"{found[chosen]}: holds no weights of a run")
    averaged = {key.removeprefix("module."): value for key, value in kept.items() if key != "n_averaged"}
    context = recipe.context()
    try:
        with bounded_building(len(averaged), sum(value.nbytes for value in averaged.values())):
            energy = build_energy(recipe, context, build_regularizers(recipe, context))
    except BadInput as error:
        raise BadInput(f"{run.recipe}: {error}") from error
    try:
        energy.load_state_dict(averaged)
    except RuntimeError as error:
        raise BadInput(f"{found[chosen]}: does not fit the run's recipe: {str(error).splitlines()[0]}") from error
    return Averaged(energy, recipe, images_seen, chosen)


def _name(run: RunFolder) -> str:
    """The recipe's name: recipe.toml does not hold it, the run's own model file does."""
    try:
        with safe_open(run.model, framework="pt") as file:
            return one_line(str((file.metadata() or {}).get("name", run.folder.name)))
    except (OSError, SafetensorError):
        return run.folder.name
