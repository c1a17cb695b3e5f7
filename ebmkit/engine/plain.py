"""The engine of a single process: plain torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ebmkit.energy_model import EnergyModel
from ebmkit.engine.interface import Engine
from ebmkit.options import OptimizerOptions


class PlainEngine(Engine):
    """AdamW on one device."""

    def __init__(self, module: EnergyModel, options: OptimizerOptions) -> None:
        self.module = module
        self.options = options
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=options.learning_rate(0.0),
            betas=options.betas,
            eps=options.eps,
            weight_decay=options.weight_decay,
        )

    def step(self, loss: Tensor, learning_rate: float) -> Tensor:
        """Backward, clip, update."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.options.clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.options.clip_grad_norm, norm)
        self.optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """AdamW's moments and step counts."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the moments; the recipe's own settings stay, so that a resumed run may change them."""
        current = self.optimizer.state_dict()["param_groups"]
        kept = [
            {**mine, "params": theirs["params"]} for mine, theirs in zip(current, state["param_groups"], strict=True)
        ]
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": kept})
