"""What the contracts of regularizers and objectives say of a term of the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ebmkit.energy_model import EnergyModel
from ebmkit.interfaces import Pairs, Term
from ebmkit.testing.analytic import gaussian, photographs, time_steps_of
from ebmkit.testing.contract import require

BATCH = 4
RESERVED = frozenset(
    {
        *("step", "images", "loss", "gradient_norm", "learning_rate"),
        *("images_per_second", "seconds", "peak_memory_gib", "skipped_images"),
    }
)
"""The metrics of every run."""


def make_pairs(
    energy: EnergyModel, shape: tuple[int, int, int], time_steps: int, dtype: torch.dtype = torch.float32
) -> Pairs:
    """Smooth images against noise, labelled, at mixed time steps."""
    x_pos, x_neg = photographs(BATCH, shape, 1, dtype), gaussian(BATCH, shape, 2, dtype)
    labels, extra = torch.tensor([0, 1, -1, 2]), {"noised": gaussian(BATCH, shape, 3, dtype)}
    return Pairs(energy, x_pos, x_neg, time_steps_of(BATCH, time_steps), labels, torch.arange(BATCH), extra)


def require_term(term: Any, what: str) -> Term:
    """The term, if it is whole: a finite scalar with a graph, and detached scalar metrics."""
    require(isinstance(term, Term), f"{what} must return an ebmkit.Term, not {type(term).__name__}")
    value = term.value
    require(
        isinstance(value, Tensor) and value.ndim == 0,
        f"the value of {what} must be a scalar tensor, not {_kind(value)}: reduce it by .mean() or .sum()",
    )
    require(value.isfinite(), f"the value of {what} is not finite")
    require(
        value.requires_grad,
        f"the value of {what} has no graph to the parameters: it would train nothing; do not detach it",
    )
    for name, metric in term.metrics.items():
        require(
            isinstance(metric, Tensor) and metric.ndim == 0,
            f"metric '{name}' of {what} must be a scalar tensor, not {_kind(metric)}",
        )
        require(
            not metric.requires_grad,
            f"metric '{name}' of {what} keeps its graph, and with it the memory of the whole step: .detach() it",
        )
    return term  # type: ignore[no-any-return]


def values_of(pairs: Pairs) -> tuple[Tensor, ...]:
    """The energies of the pairs, which whoever comes first evaluates for all, as they are now."""
    return tuple(energy.detach().clone() for energy in pairs.energies)


def require_untouched(pairs: Pairs, copy: Pairs, energies: tuple[Tensor, ...], what: str) -> None:
    """Neither what `pairs` hold nor their `energies` were changed, and no gradient was left behind."""
    require(
        all(torch.equal(now, before) for now, before in zip(pairs.energies, energies, strict=True)),
        f"{what} changes pairs.energies, which every term of the loss shares: work on a copy",
    )
    for name, before in copy.extra.items():
        require(
            isinstance(pairs.extra.get(name), Tensor) and torch.equal(pairs.extra[name], before),
            f"{what} changes pairs.extra['{name}']: work on a copy",
        )
    for name in ("x_pos", "x_neg", "t", "labels", "slots"):
        if getattr(copy, name) is None:
            continue
        require(
            torch.equal(getattr(pairs, name), getattr(copy, name)),
            f"{what} changes pairs.{name} in place: work on a copy",
        )
    require(
        not pairs.x_pos.requires_grad and not pairs.x_neg.requires_grad,
        f"{what} makes the images of the pairs require gradients: detach() them first",
    )
    energy = pairs.energy
    assert isinstance(energy, EnergyModel)
    require(
        all(p.grad is None for p in energy.parameters()),
        f"{what} leaves gradients at the parameters, which would be added to the loss's: use torch.autograd.grad",
    )
    require(energy.training, f"{what} switches the network to evaluation mode")
    require(all(p.requires_grad for p in energy.parameters()), f"{what} freezes parameters")


def _kind(value: object) -> str:
    return f"a tensor of {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def differentiates_twice(value: Tensor) -> bool:
    """Whether a term of an energy that is `OnceDifferentiable` needs a second derivative of it."""
    try:
        # Not autograd.grad: it would pass by the branch that cannot be differentiated.
        value.backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if "once_differentiable" in str(error):
            return True
        raise
    return False
