"""The interface of objectives."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

from ebmkit.interfaces.base import Component, EnergyFunction
from ebmkit.interfaces.buffer import Draw
from ebmkit.interfaces.regularizer import Pairs, Term

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Chains(Protocol):
    """What an objective may do with the run's buffer and sampler."""

    def draw(self, n: int) -> Draw:
        """`n` chains from the buffer."""

    def refine(self, x: Tensor, t: Tensor, energy: EnergyFunction | None = None) -> Tensor:
        """K sampler steps, parameters frozen, detached; on the trained energy unless another one is given."""


class Objective(Component):
    """What training minimises, and which positives and negatives it compares."""

    kind = "objective"
    needs_double_backward: ClassVar[bool] = False
    """The loss differentiates a gradient: `ebmkit check` then wants an energy that is `twice_differentiable`."""

    @abstractmethod
    def pairs(
        self, energy: EnergyFunction, x_pos: Tensor, labels: Tensor | None, chains: Chains, generator: torch.Generator
    ) -> Pairs:
        """Choose what to compare with the real images `x_pos[B, C, H, W]`; runs without gradients."""

    @abstractmethod
    def loss(self, pairs: Pairs) -> Term:
        """The scalar to minimise, differentiable by the parameters, without the regularizers' penalties."""


class BufferedObjective(Objective):
    """Objectives whose negatives are the buffer's chains, refined; clean data at every `t` (eq. 10)."""

    def pairs(
        self, energy: EnergyFunction, x_pos: Tensor, labels: Tensor | None, chains: Chains, generator: torch.Generator
    ) -> Pairs:
        """Steps 1 to 3 of Algorithm 1, as corrected in `docs/method.md`."""
        drawn = chains.draw(x_pos.shape[0])
        x_neg = chains.refine(drawn.x, drawn.t)
        return Pairs(energy, x_pos, x_neg, drawn.t, labels, drawn.slots)
