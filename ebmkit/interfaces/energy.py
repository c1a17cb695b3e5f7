"""The interface of energies, as far as it needs no torch; `ebmkit.energy_model` has the network's base class."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ebmkit.interfaces.base import Component

if TYPE_CHECKING:
    from ebmkit.energy_model import EnergyModel


class Energy(Component):
    """Builds the energy network. Apart from the network itself, so that recipes are checked without torch."""

    kind = "energy"
    twice_differentiable: ClassVar[bool] = True
    """The network can be differentiated by `x` and then by its parameters, which gradient penalties do.

    Set to False, it makes `ebmkit check` refuse recipes with a regularizer or objective that `needs_double_backward`.
    """

    @abstractmethod
    def build(self) -> EnergyModel:
        """A new network, `forward(x[B, C, H, W], t[B]) -> energy[B]`, low on data; float32, on the CPU.

        A network that has no use for `t` ignores it. Initial weights come from torch's global generator.
        """
