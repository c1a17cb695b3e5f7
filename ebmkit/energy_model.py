"""The base class of energy networks; the one interface that needs torch to be imported."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class EnergyModel(nn.Module, ABC):
    """A network `f(x, t)` whose output is **low on data**, `p_t(x) ~ exp(-f(x, t))` (eq. 8)."""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Energies `[B]` of the images `x[B, C, H, W]` at the time steps `t[B]` (int64, in {1..T})."""
