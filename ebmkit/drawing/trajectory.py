"""Images on their way from noise to data, at every time step (the paper's Figure 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ebmkit.drawing import style, tiles
from ebmkit.drawing.motion import save_frames
from ebmkit.drawing.tracing import Count, energies, follow_seed, gradient_norms
from ebmkit.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Trajectory:
    """B images at the T + 1 places of a sweep, `images[B, T + 1, C, H, W]`.

    `energies` and `gradient_norms` are `[B, T + 1]`, at `times`: the start noise has those of t = T.
    """

    places: tuple[str, ...]
    times: tuple[int, ...]
    images: Tensor
    energies: Tensor
    gradient_norms: Tensor

    def numbers(self) -> dict[str, Any]:
        """What the picture shows, as JSON values: one row for each image."""
        return {
            "places": list(self.places),
            "t": list(self.times),
            "energies": self.energies.tolist(),
            "gradient_norms": self.gradient_norms.tolist(),
        }


def compute(model: Model, count: int, seed: int, done: Count | None = None) -> Trajectory:
    """The trajectories of the first `count` images of a seed."""
    places = follow_seed(model, seed, range(count), done=done)
    return Trajectory(
        places=tuple(place.name for place in places),
        times=tuple(place.t for place in places),
        images=torch.stack([place.x for place in places], dim=1),
        energies=torch.stack([energies(model, place.x, place.t) for place in places], dim=1),
        gradient_norms=torch.stack([gradient_norms(model, place.x, place.t) for place in places], dim=1),
    )


def draw(trajectory: Trajectory, title: str = "") -> Figure:
    """A strip of images for each trajectory; below it, their energies and gradient norms at the same places."""
    images = trajectory.images
    rows, columns, *shape = images.shape
    width, height = tiles.size(rows, columns, (shape[0], shape[1], shape[2]))
    figure, (strip, energy, norm) = style.figure(rows=3, title=title, width=width, heights=(height, 1.5, 1.7))
    tiles.show(strip, images, columns=trajectory.places)
    for axes, values, name in (
        (energy, trajectory.energies, "energy f(x, t)"),
        (norm, trajectory.gradient_norms, "gradient norm"),
    ):
        for number, row in enumerate(values.tolist()):
            axes.plot(range(columns), row, color=style.GREY, linewidth=0.8, label=None if number else "each image")
        mean = values.mean(0).tolist()
        axes.plot(range(columns), mean, color=style.VERMILLION, marker="o", markersize=3, label="mean")
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_xticks(*tiles.thinned(range(columns), trajectory.places))
        style.label(axes, y=name)
    energy.tick_params(labelbottom=False)
    style.label(norm, x="place in the sweep")
    style.legend(energy)
    return figure


def save_motion(trajectory: Trajectory, path: Path, title: str = "") -> None:
    """The images in a square, moving from noise to data, as .gif or .mp4."""
    save_frames(list(_frames(trajectory, title)), path)


def _frames(trajectory: Trajectory, title: str) -> list[np.ndarray]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    count, _, *shape = trajectory.images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    # Empty places are white.
    filled = torch.ones(rows * columns, *trajectory.images.shape[1:])
    filled[:count] = trajectory.images
    squares = filled.reshape(rows, columns, *filled.shape[1:]).movedim(2, 0)
    width, height = tiles.size(rows, columns, (shape[0], shape[1], shape[2]))
    figure, (axes,) = style.figure(width=width, height=height + 0.4)
    canvas, frames = FigureCanvasAgg(figure), []
    shown = tiles.show(axes, squares[0])
    means = trajectory.energies.mean(0).tolist()
    for place, square, mean in zip(trajectory.places, squares, means, strict=True):
        shown.set_data(tiles.mosaic(square))
        # Of the same width in every frame, or the picture would jump.
        axes.set_title(f"{title}\n{place}: mean energy {mean:.2f}", fontsize=style.TEXT)
        canvas.draw()  # type: ignore[no-untyped-call]
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())  # type: ignore[no-untyped-call]
    return frames
