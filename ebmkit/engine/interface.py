"""What the trainer needs of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ebmkit.energy_model import EnergyModel


class Engine(ABC):
    """Backward, clipping and the optimizer step of one model. Every forward goes through `module`, not the engine."""

    module: EnergyModel

    @abstractmethod
    def step(self, loss: Tensor, learning_rate: float) -> Tensor:
        """One backward of `loss` and one update; returns the parameter gradient's norm before clipping, a scalar."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
