"""The `spectral_norm` regularizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ebmkit import BaseOptions, Regularizer

if TYPE_CHECKING:
    from ebmkit import EnergyModel


class SpectralNorm(Regularizer):
    """Spectral normalization (Miyato et al. 2018): each convolution's and linear layer's weight has norm 1."""

    name = "spectral_norm"
    changes_state_dict = True

    class Options(BaseOptions):
        """Options of `spectral_norm`."""

        power_iterations: int = Field(
            default=1, ge=1, le=100, description="Power iterations at each forward pass in training mode."
        )

    options: Options

    def prepare(self, model: EnergyModel) -> None:
        """Parametrize the weights, through `torch.nn.utils.parametrizations.spectral_norm`."""
        from torch import nn
        from torch.nn.utils.parametrizations import spectral_norm

        layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        for module in [m for m in model.modules() if isinstance(m, layers)]:
            spectral_norm(module, n_power_iterations=self.options.power_iterations)
