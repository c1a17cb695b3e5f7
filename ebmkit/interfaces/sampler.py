"""The interface of samplers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ebmkit.interfaces.base import Component, Context, EnergyFunction

if TYPE_CHECKING:
    from torch import Tensor


class NoiseSource(Protocol):
    """Where a sampler's randomness comes from: one generator in training, one stream per image in sampling."""

    def normal_like(self, x: Tensor) -> Tensor:
        """Independent N(0, 1) values of the shape, type and device of `x` (`[B, ...]`)."""

    def uniform_like(self, x: Tensor) -> Tensor:
        """Independent U[0, 1) values of the shape, type and device of `x` (`[B, ...]`)."""


class SweepBudget(NamedTuple):
    """What the reachability rule needs of a sampler, over one whole sweep of T*K steps (see `ebmkit.reachability`)."""

    travel: float
    """The longest way a chain can go where the gradient norm is 1: sum of `eta / 2`."""
    noise: float
    """The variance per pixel that the sampler adds: S = sum of `sigma^2`."""
    needs_gradient_bound: bool = False
    """The step size was chosen for a per-sample gradient norm of about 1, which some regularizer must then keep."""


class Sampler(Component):
    """Refines images at fixed time steps by K Langevin-like steps. The sweep over `t` belongs to the core."""

    kind = "sampler"

    @property
    @abstractmethod
    def steps(self) -> int:
        """K: gradient evaluations for each time step."""

    @abstractmethod
    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        """K steps from `x[B, C, H, W]` at `t[B]` down the energy; a new, detached tensor of the same shape.

        Called with the parameters frozen and the model in evaluation mode; `x` is left unchanged. `t` is the place in
        the sweep: T at its begin, 1 at its end, and may differ from sample to sample.
        """

    @classmethod
    def sweep_budget(cls, options: Any, context: Context) -> SweepBudget | None:
        """How far one sweep can go, or None where the reachability rule says nothing about this sampler."""
        return None
