"""The Python interface: what the command line does, in a few lines of Python."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ebmkit import pipeline
from ebmkit import recipe as recipes
from ebmkit.console import Silent
from ebmkit.description import Description, describe_component
from ebmkit.drawing import plots
from ebmkit.errors import PluginMissing
from ebmkit.plugins import BrokenPlugin, LoadedPlugin
from ebmkit.recipe import Recipe
from ebmkit.recipe_schema import recipe_schema
from ebmkit.registry import default_registry

if TYPE_CHECKING:
    from torch import Tensor

    from ebmkit.model import Model
    from ebmkit.plugins import Registered
    from ebmkit.sweeps.running import SweepOutcome, SweepView
    from ebmkit.testing.checking import Finding
    from ebmkit.trainer import Outcome
    from ebmkit.tuning.running import TuneOutcome
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

    `path` may be a folder that holds model.safetensors, or `hf://owner/name[@revision]` on the Hugging Face hub.
    `fast` is "auto", "max" or "off", by default as the model was trained.
    """
    from ebmkit.model import load_model

    return load_model(path, device, fast, _log.warning)


def evaluate(
    model: Model | str | Path,
    data: str | None = None,
    count: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    metrics: Sequence[str] = (),
    extractor: str | None = None,
    extractor_options: Mapping[str, Any] | None = None,
    weights: Sequence[str | Path] = (),
    floor: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compare `count` samples with the images of the shards `data`, by default those that the model was trained on.

    `metrics` are names such as "fid", by default "pixel_frechet_distance", or those of the features of an `extractor`.
    512 samples for pixels, 50,000 otherwise. Keys: the metrics' names, then with `floor` the numbers that as many real
    images have against the other ones, `samples`, `images`, `seed`, `overrides` where there are any, `data`,
    `extractor`, `versions`. `overrides` change the recipe's sampler: `{"sampler.step_size": 1.5}`. Raises `BadInput`
    where weights (see `weights`, files) or packages are missing.
    """
    from ebmkit.evaluation import evaluate_model

    return (
        evaluate_model(
            load(model) if isinstance(model, str | Path) else model,
            data,
            count,
            seed,
            batch_size,
            metrics=metrics,
            extractor=extractor,
            extractor_options=extractor_options,
            weights=[Path(file) for file in weights],
            floor=floor,
            overrides=overrides,
            say=_log.warning,
        )
        or {}
    )


def ood(
    model: Model | str | Path,
    against: str,
    data: str | None = None,
    t: int = 1,
    images: int | None = None,
    resize: bool = False,
    seed: int = 0,
    batch_size: int = 256,
) -> dict[str, Any]:
    """The AUROC of the energy between the shards `data` and other shards or "noise", as `ebmkit ood --json` has it."""
    from ebmkit.detection import detect

    loaded = load(model) if isinstance(model, str | Path) else model
    return detect(loaded, against, data, t, images, resize, seed, batch_size, say=_log.warning)


def likelihood(
    model: Model | str | Path,
    data: str | None = None,
    t: int = 1,
    temperature: float = 1.0,
    support: Literal["images", "all"] = "images",
    images: int | None = 1000,
    chains: int = 64,
    stops: int = 300,
    leaps: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """The log-likelihood of images by annealed importance sampling, as `ebmkit likelihood --json` has it."""
    from ebmkit.annealing.estimate import Annealing, estimate_likelihood

    loaded = load(model) if isinstance(model, str | Path) else model
    effort = Annealing(chains, stops, leaps)
    return estimate_likelihood(loaded, data, t, temperature, support, images, effort, seed, say=_log.warning)


def export(run: str | Path, out: str | Path, step: int | None = None, license_id: str | None = None) -> int:
    """Write a run's checkpoint as a model file, or a folder with a model card, as `ebmkit export` does; gives its step.

    Raises `BadInput` where there is no such checkpoint, and where `out` exists.
    """
    if Path(out).suffix == ".safetensors":
        from ebmkit.exporting import export_model

        return export_model(run, out, step)
    from ebmkit.sharing.folder import export_folder

    return export_folder(run, out, step, license_id, say=_log.warning)


def push(
    folder: str | Path, repo: str, public: bool = False, revision: str | None = None, message: str | None = None
) -> str:
    """Upload an exported folder to the Hugging Face hub, as `ebmkit push` does; returns the commit's address."""
    from ebmkit.sharing.hub import push as push_folder

    return push_folder(folder, repo, public, revision, message)


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


def sweep(
    source: str | Path,
    out_dir: str | Path | None = None,
    jobs: int = 1,
    threads: int = 1,
    view: SweepView | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> SweepOutcome:
    """Train and evaluate every run of a sweep file (or a shipped sweep's name), as `ebmkit sweep` does.

    `overrides` are values of all runs. Finished runs are kept, others go on. `outcome.rows` has values, metrics and
    cost of each run. Raises `EbmkitError`s before the first run begins; a run that fails only has `state == "failed"`.
    """
    from ebmkit.sweeps.running import Unwatched, run_sweep

    return run_sweep(source, out_dir, jobs, threads, view or Unwatched(_log.warning), overrides)


def tune(
    recipe: str | Path,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    trials: int = 6,
    steps: int = 300,
    seeds: int = 2,
    count: int = 256,
    budget: float | None = None,
    view: View | None = None,
) -> TuneOutcome:
    """Find `sampler.step_size` by short runs and write the recipe with it to `out`, as `ebmkit tune` does.

    `overrides` hold in the trials only; `budget` is in minutes. Raises `BadInput` where `out` exists.
    """
    from ebmkit.tuning import running

    limits = running.Limits(trials, steps, range(seeds), count, None if budget is None else 60 * budget)
    return running.tune(recipe, Path(out), overrides or {}, limits, view or Silent(_log.warning))


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


plot_curves = plots.plot_curves
plot_energies = plots.plot_energies
plot_histogram = plots.plot_histogram
plot_interpolation = plots.plot_interpolation
plot_neighbours = plots.plot_neighbours
plot_trajectory = plots.plot_trajectory
