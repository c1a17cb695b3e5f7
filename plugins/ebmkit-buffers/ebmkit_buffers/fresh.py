"""The `fresh` buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ebmkit import Buffer, Context, Draw

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Fresh(Buffer):
    """No memory: every chain starts from N(0, I) (short-run MCMC, Nijkamp et al. 2019). Needs `time_steps = 1`."""

    name = "fresh"

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        """`n` chains of noise at t = 1."""
        import torch

        device = self.context.device
        x = torch.randn(n, *self.context.image_shape, generator=generator, device=device)
        return Draw(torch.arange(n, device=device), x, torch.ones(n, dtype=torch.int64, device=device))

    def store(self, slots: Tensor, x: Tensor) -> None:
        """Chains are thrown away."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take back."""

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """Chains that are thrown away after K steps never get past the first time step."""
        if context.time_steps == 1:
            return []
        return [
            f"use: 'fresh' needs time_steps = 1, not {context.time_steps}: its chains start from noise at every step "
            "and never reach later time steps; set time_steps = 1 and sampler.steps to the whole chain's length, "
            "or use 'cyclic'"
        ]
