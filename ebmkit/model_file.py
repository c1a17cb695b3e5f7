"""Reading a model file, which may come from anyone: its metadata, recipe and weights, each held to the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ebmkit import recipe as recipes
from ebmkit.bounded import bounded_building
from ebmkit.energy_model import EnergyModel
from ebmkit.errors import BadInput, PluginMissing, RecipeError
from ebmkit.interfaces import PLUGIN_API
from ebmkit.pipeline import build_energy, build_regularizers, cross_check
from ebmkit.printable import one_line
from ebmkit.recipe import MAX_BYTES, Recipe
from ebmkit.registry import default_registry
from ebmkit.reporting.reading import MAX_HEADER

FORMAT = "ebmkit-model"
FORMAT_VERSION = 1
LONGEST_NAME = 100
TOLD = 3
"""Weights that a message names."""


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds: its metadata, and the recipe's energy with its weights, on the CPU."""

    metadata: Mapping[str, str]
    recipe: Recipe
    energy: EnergyModel


def read_model_file(path: Path) -> ModelFile:
    """The content of a model file. No pickle is read, nothing in it is run, and memory is in proportion to its size.

    Raises `BadInput` for a file that is missing, truncated or not ours, `PluginMissing` for a plugin that it needs.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such model file")
    try:
        _check_header(path)
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = _metadata(path, file.metadata() or {})
            recipe = _recipe_of(path, metadata)
            names = list(file.keys())
            size = path.stat().st_size
            energy = _energy_of(path, recipe, len(names), size)
            slices = {name: file.get_slice(name) for name in names}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            _check_shapes(path, energy, shapes)
            weights = {name: file.get_tensor(name) for name in names}
            _check_values(path, energy, weights)
            energy.load_state_dict(weights)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}: not a complete safetensors file ({error})") from error
    except RuntimeError as error:
        raise BadInput(f"{path}: its weights do not fit its recipe: {error}") from error
    return ModelFile(metadata, recipe, energy)


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    # A larger one than the file is for safetensors to tell.
    if MAX_HEADER < size <= path.stat().st_size:
        raise BadInput(f"{path}: its header has {size:,} bytes, and no model's has more than {MAX_HEADER:,}")


def _metadata(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    if metadata.get("format") != FORMAT:
        raise BadInput(f"{path}: a safetensors file, but not one that ebmkit exported")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        version = one_line(str(metadata.get("format_version")))
        raise BadInput(f"{path}: model format {version}; this ebmkit reads {FORMAT_VERSION}: upgrade ebmkit")
    # It becomes the title of pictures.
    return {**metadata, "name": one_line(metadata.get("name", path.stem), LONGEST_NAME)}


def _recipe_of(path: Path, metadata: Mapping[str, str]) -> Recipe:
    table, plugins = _table(path, metadata, "recipe"), _table(path, metadata, "plugins")
    for part, source in plugins.items():
        kind, _, name = part.partition(".")
        try:
            default_registry().find(kind, name)
        except PluginMissing as error:
            raise PluginMissing(
                f"{path}: needs {one_line(kind)} '{one_line(name)}' from {one_line(str(source))}, which cannot be used "
                f"here: {error}"
            ) from error
    if metadata.get("plugin_api") != str(PLUGIN_API):
        raise BadInput(
            f"{path}: made with PLUGIN_API {one_line(str(metadata.get('plugin_api')))}, this ebmkit has {PLUGIN_API}; "
            f"install ebmkit {one_line(str(metadata.get('ebmkit')))}"
        )
    try:
        recipe = recipes.from_table(table, str(path), metadata["name"])
        cross_check(recipe, str(path))
        return recipe
    except RecipeError as error:
        raise BadInput(f"{path}: the recipe in the model file does not fit the installed plugins\n{error}") from error


def _table(path: Path, metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        text = metadata[key]
        if len(text) > MAX_BYTES:
            raise ValueError(f"'{key}' has more than {MAX_BYTES:,} characters")
        table = json.loads(text, object_pairs_hook=_once_each)
        if not isinstance(table, dict):
            raise TypeError(f"'{key}' is no table")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"{path}: its metadata is damaged ({type(error).__name__}: {one_line(str(error))})") from error
    return table


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key is there twice")
    return table


def _energy_of(path: Path, recipe: Recipe, parameters: int, size: int) -> EnergyModel:
    context = recipe.context()
    try:
        with bounded_building(parameters, size):
            return build_energy(recipe, context, build_regularizers(recipe, context))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _check_shapes(path: Path, energy: EnergyModel, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Before any weight is read."""
    wanted = {name: tuple(value.shape) for name, value in energy.state_dict().items()}
    wrong = [f"{name} is missing" for name in wanted if name not in shapes]
    wrong += [f"{one_line(name)} is none of its weights" for name in shapes if name not in wanted]
    wrong += [
        f"{name} has the shape {list(shapes[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    _refuse(path, wrong)


def _check_values(path: Path, energy: EnergyModel, weights: Mapping[str, Tensor]) -> None:
    wrong: list[str] = []
    for name, own in energy.state_dict().items():
        value = weights[name]
        # Other precisions of numbers are converted: half of the bytes is a fair thing to share.
        if value.dtype != own.dtype and not (value.is_floating_point() and own.is_floating_point()):
            wrong.append(f"{name} is of {_told(value.dtype)}, not {_told(own.dtype)}")
        elif value.is_floating_point() and not bool(value.to(own.dtype).isfinite().all()):
            wrong.append(f"{name} holds numbers that are not finite: training diverged, or the file is damaged")
    _refuse(path, wrong)


def _refuse(path: Path, wrong: list[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""
        raise BadInput(f"{path}: its weights do not fit its recipe: {'; '.join(wrong[:TOLD])}{more}")


def _told(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
