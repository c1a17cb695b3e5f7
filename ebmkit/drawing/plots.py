"""One function for each picture: computes the numbers, draws them, writes both. Imports nothing heavy by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmkit.drawing import style
from ebmkit.errors import BadInput

if TYPE_CHECKING:
    from ebmkit.model import Model

Report = Callable[[str, int, "int | None"], None]
"""Called with what is being done, how much of it, and of how much, where that is known."""
READING, SAMPLING, COMPARING = "reading images", "sampling", "comparing with images"

_warn = logging.getLogger("ebmkit").warning
MOVING = (".gif", ".mp4")


def _unheard(what: str, done: int, total: int | None) -> None:
    pass


def plot_trajectory(
    model: Model | str | Path,
    out: str | Path = "trajectory.png",
    count: int = 6,
    seed: int = 0,
    device: str = "auto",
    progress: Report = _unheard,
) -> dict[str, Any]:
    """Draw the first `count` images of a seed at every time step (Figure 1); returns and writes the numbers.

    `out` ends in .png, .svg, .pdf, .gif or .mp4. The numbers go into a .json beside it: for each image and place the
    energy and its gradient's norm. Raises `BadInput` where something would be overwritten.
    """
    path = Path(out)
    style.check_out(path, (*style.PICTURES, *MOVING))
    _at_least(1, count=count)
    from ebmkit.drawing import motion, trajectory

    motion.check_player(path)
    loaded = _loaded(model, device)
    total = loaded.recipe.time_steps
    found = trajectory.compute(loaded, count, seed, lambda done: progress(SAMPLING, done, total))
    numbers = _head("trajectory", loaded) | {"seed": seed, "count": count} | found.numbers()
    title = f"{loaded.recipe.name}: from noise to images, seed {seed}"
    if path.suffix.lower() in MOVING:
        style.save_numbers(path, numbers)
        trajectory.save_motion(found, path, title)
    else:
        style.save(trajectory.draw(found, title), path, numbers)
    return numbers


def plot_interpolation(
    model: Model | str | Path,
    out: str | Path = "interpolation.png",
    count: int = 6,
    seed: int = 0,
    other_seed: int | None = None,
    images: int = 9,
    device: str = "auto",
    progress: Report = _unheard,
) -> dict[str, Any]:
    """Draw `count` rows of `images` from one seed's image to another's (Figure 3); returns and writes the numbers.

    Spherical in the initial noise and in all that the sampler adds. `other_seed` is the next one by default.
    """
    path = Path(out)
    style.check_out(path)
    _at_least(1, count=count)
    _at_least(2, images=images)
    other = seed + 1 if other_seed is None else other_seed
    from ebmkit.drawing import interpolation

    loaded = _loaded(model, device)
    found = interpolation.compute(loaded, count, images, seed, other, lambda done: progress(SAMPLING, done, images))
    numbers = _head("interpolation", loaded) | {"seed": seed, "other_seed": other, "count": count} | found.numbers()
    title = f"{loaded.recipe.name}: from seed {seed} to seed {other}, spherical in all noise"
    style.save(interpolation.draw(found, title), path, numbers)
    return numbers


def plot_energies(
    model: Model | str | Path,
    out: str | Path = "energies.png",
    factors: Sequence[float] = (0.5, 1.0, 2.0),
    data: str | None = None,
    count: int = 128,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "auto",
    progress: Report = _unheard,
) -> dict[str, Any]:
    """Draw the energy along the sweep of samples and of real images at the same t (Figure 4); returns the numbers.

    `factors` multiply the recipe's step size. `data` names other shards than the model was trained on.
    """
    path = Path(out)
    style.check_out(path)
    _at_least(1, count=count, batch_size=batch_size)
    if not factors or not all(0 < factor < float("inf") for factor in factors):
        raise BadInput("factors of the step size must be numbers above 0")
    from ebmkit.drawing import energies
    from ebmkit.drawing.real import some_images
    from ebmkit.model_images import shards_of

    loaded = _loaded(model, device)
    real = some_images(shards_of(loaded, data), count, seed, _warn, partial(progress, READING))
    total = len(factors) * -(-count // batch_size) * loaded.recipe.time_steps
    found = energies.compute(
        loaded, real, factors, count, seed, batch_size, lambda done: progress(SAMPLING, done, total)
    )
    numbers = _head("energies", loaded) | {"data": _data_name(loaded, data), "seed": seed, "count": count}
    numbers |= found.numbers()
    style.save(energies.draw(found, f"{loaded.recipe.name}: energy along the sweep, seed {seed}"), path, numbers)
    return numbers


def plot_neighbours(
    model: Model | str | Path,
    out: str | Path = "neighbours.png",
    data: str | None = None,
    features: str = "pixels",
    count: int = 8,
    nearest: int = 6,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "auto",
    progress: Report = _unheard,
) -> dict[str, Any]:
    """Draw the training images nearest to samples (Figures 6 to 9); returns and writes the numbers.

    By cosine similarity of `features`: "pixels", "energy" (what the last layer of the energy sees), or an extractor's.
    """
    path = Path(out)
    style.check_out(path)
    _at_least(1, count=count, nearest=nearest, batch_size=batch_size)
    from ebmkit.drawing import neighbours
    from ebmkit.drawing.features import features_of
    from ebmkit.model_images import shards_of

    loaded = _loaded(model, device)
    by, options = features_of(features, loaded), shards_of(loaded, data)
    samples = loaded.sample(count, seed, batch_size, progress=partial(progress, SAMPLING))
    found = neighbours.compute(samples, options, by, nearest, batch_size, _warn, partial(progress, COMPARING))
    numbers = _head("neighbours", loaded) | {"data": _data_name(loaded, data), "features": features, "seed": seed}
    numbers |= found.numbers()
    title = f"{loaded.recipe.name}: samples of seed {seed} and the nearest of {found.compared:,} images\n"
    title += f"(below: cosine similarity of {_FEATURES.get(features, features)})"
    style.save(neighbours.draw(found, title), path, numbers)
    return numbers


_FEATURES = {"pixels": "pixels", "energy": "what the energy's last layer sees"}


def plot_histogram(
    model: Model | str | Path,
    out: str | Path = "histogram.png",
    data: str | None = None,
    count: int = 512,
    seed: int = 0,
    time_step: int = 1,
    batch_size: int = 64,
    device: str = "auto",
    progress: Report = _unheard,
) -> dict[str, Any]:
    """Draw how the energies of real images, samples and noise at a time step are spread; returns the numbers."""
    path = Path(out)
    style.check_out(path)
    _at_least(1, count=count, batch_size=batch_size)
    from ebmkit.drawing import histogram
    from ebmkit.drawing.real import some_images
    from ebmkit.model_images import shards_of

    loaded = _loaded(model, device)
    if not 1 <= time_step <= loaded.recipe.time_steps:
        raise BadInput(f"the time step must be from 1 to {loaded.recipe.time_steps}, not {time_step}")
    real = some_images(shards_of(loaded, data), count, seed, _warn, partial(progress, READING))
    found = histogram.compute(loaded, real, count, seed, time_step, batch_size, partial(progress, SAMPLING))
    numbers = _head("histogram", loaded) | {"data": _data_name(loaded, data), "seed": seed} | found.numbers()
    title = f"{loaded.recipe.name}: energies at t = {time_step}, seed {seed}"
    style.save(histogram.draw(found, title), path, numbers)
    return numbers


def plot_curves(runs: Sequence[str | Path] | str | Path, out: str | Path = "curves.png") -> dict[str, Any]:
    """Draw the metrics of one or several run folders over the training steps; returns and writes the numbers."""
    path = Path(out)
    style.check_out(path)
    from ebmkit.drawing import curves

    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not folders:
        raise BadInput("name at least one run folder")
    found = curves.read(folders)
    numbers = {"picture": "curves"} | found.numbers()
    title = "Training of " + (folders[0].absolute().name if len(folders) == 1 else f"{len(folders)} runs")
    style.save(curves.draw(found, title), path, numbers)
    return numbers


def _loaded(model: Model | str | Path, device: str) -> Model:
    if not isinstance(model, str | Path):
        return model
    from ebmkit.model import load_model

    return load_model(model, device, None, _warn)


def _head(picture: str, model: Model) -> dict[str, Any]:
    """What every file of numbers begins with."""
    return {
        "picture": picture,
        "model": None if model.path is None else str(model.path),
        "recipe": model.recipe.name,
        "steps": model.metadata.get("steps"),
    }


def _data_name(model: Model, data: str | None) -> str | list[str]:
    shards = model.recipe.data.patterns if data is None else (data,)
    return shards[0] if len(shards) == 1 else list(shards)


def _at_least(lowest: int, **values: int) -> None:
    for name, value in values.items():
        if value < lowest:
            raise BadInput(f"{name} must be at least {lowest}, not {value}")
