"""Energy along the sweep, of samples and of real images at the same t, for several step sizes (Figure 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ebmkit.drawing import style, tiles
from ebmkit.drawing.stepping import mean_step_size, sampler_times
from ebmkit.drawing.tracing import Count, energies, follow_seed
from ebmkit.model import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND = (0.1, 0.9)
"""Quantiles between which the band of real images lies."""


@dataclass(frozen=True)
class EnergySweep:
    """Energies at the T + 1 places of a sweep: `data[M, T + 1]`, `samples` a `[N, T + 1]` for each factor of `factors`.

    `step_size` is the mean of the recipe's own over the sweep, where its sampler tells of it.
    """

    places: tuple[str, ...]
    times: tuple[int, ...]
    factors: tuple[float, ...]
    samples: tuple[Tensor, ...]
    data: Tensor
    step_size: float | None

    def numbers(self) -> dict[str, Any]:
        """What the picture shows, as JSON values: means and the quantiles of each place, and the gap at the end."""
        quantiles = {f"{q:.0%}": row.tolist() for q, row in zip(BAND, _band(self.data), strict=True)}
        curves = [
            {
                "factor": factor,
                "step_size": None if self.step_size is None else factor * self.step_size,
                "mean": values.mean(0).tolist(),
                "standard_deviation": values.std(0, correction=0).tolist(),
                "last_minus_data": float(values[:, -1].mean() - self.data[:, -1].mean()),
            }
            for factor, values in zip(self.factors, self.samples, strict=True)
        ]
        return {
            "places": list(self.places),
            "t": list(self.times),
            "data": {"images": len(self.data), "mean": self.data.mean(0).tolist(), **quantiles},
            "samples": curves,
        }


def compute(
    model: Model,
    real: Tensor,
    factors: Sequence[float],
    count: int,
    seed: int,
    batch_size: int = 64,
    done: Count | None = None,
) -> EnergySweep:
    """The energies of `count` samples of a seed for each factor of the step size, and of `real[M, C, H, W]`.

    `done` is told of sweeps' time steps, `len(factors) * ceil(count / batch_size) * T` of them.
    """
    curves, times, names, before = [], [], [], 0
    for factor in factors:
        sampler = sampler_times(model, factor)
        parts = []
        for first in range(0, count, batch_size):
            batch = range(first, min(first + batch_size, count))
            told = None if done is None else lambda steps, before=before: done(before + steps)
            places = follow_seed(model, seed, batch, sampler, told)
            parts.append(torch.stack([energies(model, place.x, place.t) for place in places], dim=1))
            names, times = [place.name for place in places], [place.t for place in places]
            before += model.recipe.time_steps
        curves.append(torch.cat(parts))
    # The energy at t = T stands for the start noise, too.
    data = torch.stack([_in_batches(model, real, t, batch_size) for t in times[1:]], dim=1)
    data = torch.cat([data[:, :1], data], dim=1)
    step_size = mean_step_size(model.recipe)
    return EnergySweep(tuple(names), tuple(times), tuple(factors), tuple(curves), data, step_size)


def draw(sweep: EnergySweep, title: str = "") -> Figure:
    """Two panels over the places of the sweep: the energies, and how far those of samples lie above the data's."""
    figure, (above, below) = style.figure(rows=2, title=title, height=2.7, share_x=True)
    ticks = range(len(sweep.places))
    low, high = _band(sweep.data)
    mean = sweep.data.mean(0)
    for axes, minus in ((above, torch.zeros_like(mean)), (below, mean)):
        axes.fill_between(
            ticks, (low - minus).tolist(), (high - minus).tolist(), color=style.BLACK, alpha=0.12, linewidth=0,
            label="real, 10 to 90 %",
        )  # fmt: skip
        axes.plot(ticks, (mean - minus).tolist(), color=style.BLACK, linewidth=2, label="real, mean")
        for number, (factor, values) in enumerate(zip(sweep.factors, sweep.samples, strict=True)):
            line = (values.mean(0) - minus).tolist()
            axes.plot(ticks, line, marker="o", markersize=3, label=_name(sweep, factor), **style.series(number))
    style.label(above, y="energy f(x, t)", title="Energy at each place of the sweep (mean over images)")
    style.label(
        below, x="place in the sweep", y="difference of energy", title="The same minus the mean of real images, near 0"
    )
    _limit(below, sweep)
    below.set_xticks(*tiles.thinned(ticks, sweep.places))
    style.legend(above)
    return figure


def _limit(axes: Axes, sweep: EnergySweep) -> None:
    """Show where samples come to lie: they begin far above all of it."""
    mean = sweep.data.mean(0)
    low, high = _band(sweep.data)
    last = [float(values[:, -1].mean() - mean[-1]) for values in sweep.samples]
    ends = [value for value in last if math.isfinite(value)]
    bottom = min([float((low - mean).min()), *ends])
    top = max([3 * float((high - mean).max()), *[1.5 * end for end in sorted(ends)[:1]]])
    if math.isfinite(bottom + top) and bottom < top:
        axes.set_ylim(bottom - 0.1 * (top - bottom), top)


def _name(sweep: EnergySweep, factor: float) -> str:
    of = f"samples, {factor:g} x step size"
    return of if sweep.step_size is None else f"{of}\n(eta = {factor * sweep.step_size:.3g})"


def _band(values: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.quantile(values, torch.tensor(BAND, dtype=values.dtype), dim=0)
    return low, high


def _in_batches(model: Model, x: Tensor, t: int, batch_size: int) -> Tensor:
    return torch.cat([energies(model, part, t) for part in torch.split(x, batch_size)])
