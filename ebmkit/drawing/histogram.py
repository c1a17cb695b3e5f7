"""How the energies of real images, samples and noise are spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmkit.drawing import style
from ebmkit.drawing.tracing import energies
from ebmkit.model import Model, Progress
from ebmkit.noise import PerImageNoise
from ebmkit.sampling import start_noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 40
STYLES = {"data": ("-", "//"), "samples": ("--", "\\\\"), "noise": (":", "..")}
"""Line and hatching, which tell the three apart in grey."""


@dataclass(frozen=True)
class Energies:
    """Energies at time step `t`: of each group, `data`, `samples` and `noise`, `[N]`."""

    t: int
    groups: dict[str, Tensor]

    def numbers(self) -> dict[str, Any]:
        """What the picture shows, as JSON values: moments and every energy."""
        rows = {
            name: {
                "images": len(values),
                "mean": float(values.mean()),
                "standard_deviation": float(values.std(correction=0)),
                "energies": values.tolist(),
            }
            for name, values in self.groups.items()
        }
        return {"t": self.t, **rows}


def compute(
    model: Model,
    real: Tensor,
    count: int,
    seed: int,
    t: int = 1,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Energies:
    """Energies at `t` of `real[M, C, H, W]`, of `count` samples of a seed, and of the noise that these began as."""
    groups = {"data": torch.cat([energies(model, part, t) for part in torch.split(real, batch_size)])}
    drawn = model.sample_batches(count, seed, batch_size, progress=progress)
    groups["samples"] = torch.cat([energies(model, images, t) for images in drawn])
    begun = []
    for first in range(0, count, batch_size):
        indices = range(first, min(first + batch_size, count))
        noise = PerImageNoise(seed, indices, model.device)
        begun.append(energies(model, start_noise(noise, len(indices), model.image_shape, model.device), t))
    groups["noise"] = torch.cat(begun)
    return Energies(t, groups)


def draw(found: Energies, title: str = "") -> Figure:
    """Two panels: the three groups over the whole range, and data and samples over theirs."""
    from matplotlib.colors import to_rgba

    figure, (whole, near) = style.figure(columns=2, title=title, height=3.2)
    for axes, names in ((whole, ("data", "samples", "noise")), (near, ("data", "samples"))):
        together = torch.cat([found.groups[name] for name in names])
        together = together[together.isfinite()]
        low, high = (float(together.min()), float(together.max())) if len(together) else (0.0, 1.0)
        width = (high - low) / BINS or 1.0
        edges = [low + i * width for i in range(BINS + 1)]
        for name in names:
            values = found.groups[name]
            # The last edge is within the last bin, whatever rounding says.
            bins = ((values[values.isfinite()] - low) / width).long().clamp(0, BINS - 1)
            shares = (torch.bincount(bins, minlength=BINS) / len(values)).tolist()
            line, hatch = STYLES[name]
            pale, strong = (to_rgba(style.ROLES[name], alpha) for alpha in (0.2, 0.6))
            axes.stairs(shares, edges, fill=True, facecolor=pale, edgecolor=strong, hatch=hatch, linewidth=0)
            axes.stairs(
                shares, edges, color=style.ROLES[name], linestyle=line, linewidth=1.5, label=f"{name} ({len(values)})"
            )
        style.label(axes, x=f"energy f(x, {found.t})", y="share of the images", title=" and ".join(_listed(names)))
    # Of the panel that has all three.
    style.legend(near, whole.get_legend_handles_labels())
    return figure


def _listed(names: tuple[str, ...]) -> tuple[str, ...]:
    return names if len(names) == 2 else (", ".join(names[:-1]), names[-1])
