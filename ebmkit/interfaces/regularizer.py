"""The interface of regularizers, and what they see of a training step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ebmkit.interfaces.base import Component, EnergyFunction, Metrics

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ebmkit.energy_model import EnergyModel


@dataclass
class Pairs:
    """What one training step compares: images, chains and the energy that is trained.

    `x_pos` and `x_neg` are `[B, C, H, W]`, `t` is `[B]` and the same for both (step 3 of the method); `labels[B]` are
    int64, -1 where unknown. `slots` are the buffer slots that `x_neg` goes back to, None where it does not.
    """

    energy: EnergyFunction
    x_pos: Tensor
    x_neg: Tensor
    t: Tensor
    labels: Tensor | None = None
    slots: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Whatever the objective's `pairs` prepares for its own `loss`, such as noised images."""

    @cached_property
    def energies(self) -> tuple[Tensor, Tensor]:
        """`f(x_pos, t)` and `f(x_neg, t)`, each `[B]`: evaluated once, however many terms use them."""
        from ebmkit.fast.energy import both_energies

        return both_energies(self.energy, self.x_pos, self.x_neg, self.t)


class Term(NamedTuple):
    """A part of the loss: the scalar to minimise, its weight included, and what to log of it."""

    value: Tensor
    metrics: Metrics


class Regularizer(Component):
    """Keeps the energy well-behaved: by a penalty in the loss, by the structure of the network, or by both."""

    kind = "regularizer"
    needs_double_backward: ClassVar[bool] = False
    """The penalty differentiates a gradient: `ebmkit check` then wants an energy that is `twice_differentiable`."""
    changes_state_dict: ClassVar[bool] = False
    """`prepare` renames or adds parameters: a model file then loads only through the same regularizer."""

    def prepare(self, model: EnergyModel) -> None:
        """Change the network's structure in place, once, before weights are loaded."""
        return

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        """The weighted penalty of this batch, differentiable by the parameters; None if there is none."""
        return None

    @classmethod
    def gradient_bound(cls, options: Any) -> float | None:
        """The per-sample norm of the energy's input gradient that this keeps to, if any (reachability rule)."""
        return None
