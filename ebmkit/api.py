"""The Python interface: what the command line does, in a few lines of Python."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmkit import pipeline
from ebmkit import recipe as recipes
from ebmkit.console import Silent
from ebmkit.description import Description, describe_component
from ebmkit.errors import PluginMissing
from ebmkit.plugins import BrokenPlugin, LoadedPlugin
from ebmkit.recipe import Recipe
from ebmkit.recipe_schema import recipe_schema
from ebmkit.registry import default_registry

if TYPE_CHECKING:
    from torch import Tensor

    from ebmkit.model import Model
    from ebmkit.plugins import Registered
    from ebmkit.testing.checking import Finding
    from ebmkit.trainer import Outcome
    from ebmkit.view import View

_log = logging.getLogger("ebmkit")


def train(
    recipe: str | Path = "digits",
    overrides: Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    view: View | None = None,
) -> Outcome:
    """Train a recipe (a TOML file or a shipped recipe's name), as `ebmkit train` does; raises `EbmkitError`s.

    `overrides` are dotted keys, `{"sampler.steps": 5}`; `load(outcome.model)` is the trained model. Warnings go to the
    logger `ebmkit`, unless a `view` takes them.
    """
    from ebmkit.running import run_training

    return run_training(recipe, overrides or {}, run_dir, resume, view or Silent(_log.warning))


def load(path: str | Path, device: str = "auto", fast: str | None = None) -> Model:
    """The model of a model file; `load(path).sample(64, seed=0)` draws images `[64, C, H, W]` in [-1, 1].

    `fast` is "auto", "max" or "off", by default as the model was trained.
    """
    from ebmkit.model import load_model

    return load_model(path, device, fast, _log.warning)


def evaluate(
    model: Model | str | Path, data: str | None = None, count: int = 512, seed: int = 0, batch_size: int = 64
) -> dict[str, Any]:
    """The pixel-space Fréchet distance (not FID) of `count` samples to the images of the shards `data`.

    By default to those that the model was trained on. Keys: `pixel_frechet_distance`, `samples`, `images`, `seed`.
    """
    from ebmkit.evaluation import evaluate_model

    loaded = load(model) if isinstance(model, str | Path) else model
    return evaluate_model(loaded, data, count, seed, batch_size, say=_log.warning) or {}


def export(run: str | Path, out: str | Path, step: int | None = None) -> int:
    """Write the EMA weights of a run's checkpoint as a model file, as `ebmkit export` does; returns its step.

    Raises `BadInput` where there is no such checkpoint, and where `out` exists.
    """
    from ebmkit.exporting import export_model

    return export_model(run, out, step)


def report(runs: str | Path | Sequence[str | Path], out: str | Path = "report.html", max_mb: int = 20) -> Path:
    """Write the report of one or several run folders as one HTML file of at most `max_mb` megabytes; returns its path.

    A report that is there is made anew; raises `BadInput` for what is no run folder, and where `out` is anything else.
    """
    from ebmkit.reporting.writing import write_report

    return write_report([runs] if isinstance(runs, str | Path) else runs, out, max_mb).path


def save_images(images: Tensor, path: str | Path) -> None:
    """Write images `[B, C, H, W]` in [-1, 1] as `ebmkit sample --out` does: .png, .npz, .safetensors, or a folder.

    Raises `BadInput` for another ending and where something would be overwritten.
    """
    from ebmkit.image_files import open_output

    with open_output(Path(path), len(images)) as write:
        write(images.detach().cpu())


def check(
    recipe: str | Path, overrides: Mapping[str, Any] | None = None, warn: Callable[[str], None] | None = None
) -> Recipe:
    """The bound recipe; raises `RecipeError` with all of its problems. Imports no torch and reads no data."""
    bound = recipes.load(recipe, overrides)
    for warning in pipeline.cross_check(bound, str(recipe)):
        (warn or _log.warning)(warning)
    return bound


def list_plugins() -> tuple[list[Registered], list[BrokenPlugin]]:
    """Every installed component by kind and name, and the plugins that did not load."""
    registry = default_registry()
    return list(registry), registry.broken


def describe(kind: str, name: str) -> Description:
    """A component's docstring, options and origin; raises `PluginMissing`."""
    return describe_component(default_registry().find(kind, name))


def new_plugin(kind: str, name: str, out: str | Path | None = None) -> Path:
    """Write a complete plugin project into a new folder (by default `ebmkit-NAME`), and return that folder.

    Raises `BadInput` for an unknown kind, a name that cannot be used, and a folder that is not empty.
    """
    from ebmkit import scaffold

    return scaffold.new_plugin(kind, name, None if out is None else Path(out))


def check_plugin(
    name: str,
    image_shape: tuple[int, int, int] | None = None,
    time_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """What the contracts say of a distribution, plugin or module, rule by rule, as `ebmkit check-plugin` does.

    `options` are values to test with: `{"weight": 0.5}`, or `{"regularizer.my_r1.weight": 0.5}` for one of several
    components. Raises `BadInput` for those that cannot be used and where nothing has this name, and `PluginMissing`
    with the reason for a plugin that does not load.
    """
    from ebmkit.testing.checking import check_plugins
    from ebmkit.testing.finding import find_plugins

    plugins = find_plugins(name)
    for plugin in plugins:
        if isinstance(plugin, BrokenPlugin):
            raise PluginMissing(f"{plugin.label}: {plugin.reason}")
    loaded = [plugin for plugin in plugins if isinstance(plugin, LoadedPlugin)]
    return list(check_plugins(loaded, image_shape, time_steps, options))


def schema(warn: Callable[[str], None] | None = None) -> dict[str, Any]:
    """The JSON Schema of a recipe, with every installed component; `warn` is told of those whose options have none."""
    return recipe_schema(default_registry(), warn or _log.warning)
