"""`ebmkit plot`: pictures of models and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ebmkit.cli.sampling import BatchSize, Device, ModelFile, Seed
from ebmkit.console import console, progress_bar

Count = Annotated[int, typer.Option(min=1, help="How many samples; in strips and rows, how many of them.")]
Data = Annotated[str | None, typer.Option(help="Shards of the real images; the recipe's own by default.")]
Out = Annotated[Path, typer.Option(help="The picture, .png, .svg or .pdf; its numbers go beside it, into a .json.")]

plot = typer.Typer(
    name="plot",
    help="Draw what a model or a run does. Each picture comes with its numbers; nothing is overwritten.\n\n"
    "Example: ebmkit plot trajectory runs/digits/model.safetensors --out trajectory.png",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@plot.command()
def trajectory(
    model: ModelFile,
    out: Annotated[
        Path,
        typer.Option(help="A strip as .png, .svg or .pdf, or a moving picture as .gif or .mp4 (which needs ffmpeg)."),
    ] = Path("trajectory.png"),
    count: Count = 6,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw images on their way from noise to data, at every time step, with their energies and gradient norms.

    Example: ebmkit plot trajectory runs/digits/model.safetensors --count 6 --out trajectory.gif
    """
    from ebmkit.drawing.plots import plot_trajectory

    with _reporting() as progress:
        plot_trajectory(model, out, count, seed, device, progress)
    _say(out)


@plot.command()
def interpolation(
    model: ModelFile,
    out: Out = Path("interpolation.png"),
    count: Annotated[int, typer.Option(min=1, help="How many rows.")] = 6,
    images: Annotated[int, typer.Option(min=2, help="Images in a row, both ends included.")] = 9,
    seed: Seed = 0,
    other_seed: Annotated[int | None, typer.Option(min=0, help="Where the rows end; the next seed by default.")] = None,
    device: Device = "auto",
) -> None:
    """Draw rows of images from one seed's to another's, spherical in the initial noise and in every Langevin noise.

    The ends are the images that `ebmkit sample` draws with these seeds and --count.

    Example: ebmkit plot interpolation runs/digits/model.safetensors --seed 1 --other-seed 5 --out rows.png
    """
    from ebmkit.drawing.plots import plot_interpolation

    with _reporting() as progress:
        plot_interpolation(model, out, count, seed, other_seed, images, device, progress)
    _say(out)


@plot.command()
def energies(
    model: ModelFile,
    out: Out = Path("energies.png"),
    step_size: Annotated[
        list[float] | None,
        typer.Option(help="A factor of the recipe's step size; may be given several times. 0.5, 1 and 2 by default."),
    ] = None,
    data: Data = None,
    count: Count = 128,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = "auto",
) -> None:
    """Draw the energy along the sweep, of samples and of real images at the same t, for several step sizes.

    A step size is right where, at the end, samples lie slightly below real images.

    Example: ebmkit plot energies runs/digits/model.safetensors --step-size 0.5 --step-size 1 --step-size 1.5
    """
    from ebmkit.drawing.plots import plot_energies

    factors = step_size or [0.5, 1.0, 2.0]
    with _reporting() as progress:
        plot_energies(model, out, factors, data, count, seed, batch_size, device, progress)
    _say(out)


@plot.command()
def neighbours(
    model: ModelFile,
    out: Out = Path("neighbours.png"),
    data: Data = None,
    features: Annotated[
        str, typer.Option(help="'pixels', 'energy' (what its last layer sees at t = 1), or a feature extractor.")
    ] = "pixels",
    count: Count = 8,
    nearest: Annotated[int, typer.Option(min=1, help="Neighbours of each sample.")] = 6,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = "auto",
) -> None:
    """Draw samples with the training images nearest to them by cosine similarity: has the model copied any?

    Example: ebmkit plot neighbours runs/digits/model.safetensors --features energy --out neighbours.png
    """
    from ebmkit.drawing.plots import plot_neighbours

    with _reporting() as progress:
        plot_neighbours(model, out, data, features, count, nearest, seed, batch_size, device, progress)
    _say(out)


@plot.command()
def histogram(
    model: ModelFile,
    out: Out = Path("histogram.png"),
    data: Data = None,
    count: Count = 512,
    seed: Seed = 0,
    time_step: Annotated[int, typer.Option(min=1, help="The t of the energy f(x, t); 1 is the last.")] = 1,
    batch_size: BatchSize = 64,
    device: Device = "auto",
) -> None:
    """Draw how the energies of real images, samples and noise are spread.

    Example: ebmkit plot histogram runs/digits/model.safetensors --count 1000 --out histogram.png
    """
    from ebmkit.drawing.plots import plot_histogram

    with _reporting() as progress:
        plot_histogram(model, out, data, count, seed, time_step, batch_size, device, progress)
    _say(out)


@plot.command()
def curves(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Out = Path("curves.png"),
) -> None:
    """Draw the metrics of one or several runs over the training steps. Needs no model and no torch.

    Example: ebmkit plot curves runs/digits runs/other --out curves.png
    """
    from ebmkit.drawing.plots import plot_curves

    plot_curves(runs, out)
    _say(out)


@contextmanager
def _reporting() -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar for one kind of work after another; silent in a pipe."""
    with progress_bar(console(stderr=True)) as bar:
        tasks = {"starting": bar.add_task("starting", total=None, unit="")}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                bar.remove_task(tasks.popitem()[1])
                tasks[what] = bar.add_task(what, total=total, unit="")
            bar.update(tasks[what], completed=done, total=total)

        yield report


def _say(out: Path) -> None:
    console().print(f"{out}, numbers: {out.with_suffix('.json')}", markup=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(plot)
