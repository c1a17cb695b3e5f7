"""The `energy_l2` regularizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ebmkit import BaseOptions, Pairs, Regularizer, Term

if TYPE_CHECKING:
    import torch


class EnergyL2(Regularizer):
    """Keeps energies near 0 (Du & Mordatch 2019): `weight * mean(f(x_pos, t)^2 + f(x_neg, t)^2)`."""

    name = "energy_l2"

    class Options(BaseOptions):
        """Options of `energy_l2`."""

        weight: float = Field(default=1.0, ge=0, description="The weight of the penalty in the loss.")

    options: Options

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term:
        """The weighted sum of squares; the energies are those that the objective uses."""
        positive, negative = pairs.energies
        value = self.options.weight * (positive.square() + negative.square()).mean()
        return Term(value, {"penalty": value.detach()})
