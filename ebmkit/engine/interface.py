"""What the trainer needs of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from ebmkit.energy_model import EnergyModel


class Judge(Protocol):
    """Says of a gradient's norm whether the update by it is to be made, as scalar tensors, so that nobody waits."""

    def __call__(self, norm: Tensor, finite_only: bool = False) -> Tensor:
        """With `finite_only` the answer is that the norm is finite: no other one can be followed."""


class Engine(ABC):
    """Backward, clipping and the optimizer step of one model. Every forward goes through `module`, not the engine.

    A step is `accumulate` micro-batches on each rank: a `backward` for each, then one `step`.
    """

    module: EnergyModel

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch's scalar `loss`, the mean over its images."""

    @abstractmethod
    def step(self, learning_rate: float, judge: Judge | None = None) -> Tensor:
        """One update by the mean gradient over micro-batches and ranks; returns its norm before clipping, a scalar.

        Where the `judge` says no, weights and moments stay as they are, and only the gradients are forgotten.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The whole optimizer state, as torch's AdamW has it: the same for every engine and any number of ranks.

        Every rank calls it; the tensors are whole on rank 0, and may be missing on others.
        """

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave on rank 0; raises `ValueError` for a state that does not fit.

        An empty "state" is that before the first step.
        """
