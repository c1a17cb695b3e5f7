"""The engine of a single process: plain torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ebmkit.energy_model import EnergyModel
from ebmkit.engine.interface import Engine, Judge
from ebmkit.engine.optimizer import (
    SkippingAdamW,
    adamw_settings,
    clip,
    load_moments,
    set_learning_rate,
    trainable,
)
from ebmkit.options import OptimizerOptions


class PlainEngine(Engine):
    """AdamW on one device."""

    def __init__(
        self, module: EnergyModel, options: OptimizerOptions, accumulate: int = 1, fused: bool = False
    ) -> None:
        self.module = module
        self.options = options
        self.accumulate = accumulate
        self.parameters = trainable(module)
        self.optimizer = SkippingAdamW(self.parameters, fused=fused or None, **adamw_settings(options))

    def backward(self, loss: Tensor) -> None:
        """Add this micro-batch's share of the mean gradient."""
        (loss / self.accumulate if self.accumulate > 1 else loss).backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float, judge: Judge | None = None) -> Tensor:
        """Clip, update, and forget the gradients."""
        set_learning_rate(self.optimizer, learning_rate)
        norm = clip(self.parameters, self.options.clip_grad_norm)
        self.optimizer.good = None if judge is None else judge(norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """AdamW's moments and step counts."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the moments."""
        load_moments(self.optimizer, state)
