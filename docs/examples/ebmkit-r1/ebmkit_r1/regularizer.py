"""The regularizer `r1`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebmkit import BaseOptions, Pairs, Regularizer, Term
from pydantic import Field

if TYPE_CHECKING:
    import torch


class R1(Regularizer):
    """R1 (Mescheder et al. 2018): `weight / 2 * mean ||grad_x f(x_pos, t)||^2`, at real images only."""

    name = "r1"
    needs_double_backward = True

    class Options(BaseOptions):
        """Options of `r1`."""

        weight: float = Field(default=10.0, ge=0, description="Weight of the penalty in the loss.")

    options: Options

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term:
        """The squared norm is taken for each image, over C, H and W."""
        from ebmkit import energy_gradient

        gradient = energy_gradient(pairs.energy, pairs.x_pos, pairs.t, create_graph=True)
        squared_norm = gradient.square().sum(dim=(1, 2, 3))
        value = self.options.weight / 2 * squared_norm.mean()
        return Term(value, {"penalty": value.detach(), "gradient_norm": squared_norm.detach().sqrt().mean()})
