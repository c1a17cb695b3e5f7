"""The moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """torch's `AveragedModel` with `decay`: the same numbers and state, in an update that never waits for a GPU.

    torch's own update copies its count of updates to the device each time, which waits for the step before it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move each parameter by `1 - decay` towards that of `model`, the first time all the way; copy the buffers."""
        parameters = list(zip(self.module.parameters(), model.parameters(), strict=True))
        buffers = zip(self.module.buffers(), model.buffers(), strict=True)
        numbers = [pair for pair in parameters if _has_a_mean(pair[0])]
        others = [pair for pair in parameters if not _has_a_mean(pair[0])]
        # The count lies on the CPU, wherever the model is.
        share = 1 - self.decay if int(self.n_averaged) else 1.0
        torch._foreach_lerp_([mine for mine, _ in numbers], [theirs for _, theirs in numbers], share)
        for mine, theirs in [*buffers, *others]:
            mine.copy_(theirs)
        self.n_averaged += 1


def _has_a_mean(parameter: Tensor) -> bool:
    return parameter.is_floating_point() or parameter.is_complex()
