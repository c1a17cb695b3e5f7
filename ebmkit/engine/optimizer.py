"""The optimizer of both engines, and its state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ebmkit.energy_model import EnergyModel
from ebmkit.options import OptimizerOptions

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps for each parameter, in the parameter's shape."""


class SkippingAdamW(torch.optim.AdamW):
    """torch's AdamW, whose step does nothing where `good` is a false scalar tensor.

    Fused updates decide on the device, as they do for torch's gradient scaler; others wait for `good`.
    """

    good: Tensor | None = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update, or none."""
        if self.good is not None:
            if self.defaults["fused"]:
                self.grad_scale, self.found_inf = None, (~self.good).float()
            elif not self.good:
                return None
        return super().step(closure)


def trainable(module: EnergyModel) -> list[torch.nn.Parameter]:
    """The parameters that are trained, in the module's order."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def adamw_settings(options: OptimizerOptions) -> dict[str, Any]:
    """AdamW's arguments, with the recipe's options."""
    return {
        "lr": options.learning_rate(0.0),
        "betas": options.betas,
        "eps": options.eps,
        "weight_decay": options.weight_decay,
    }


def set_learning_rate(optimizer: Any, learning_rate: float) -> None:
    """The learning rate of the next update."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def clip(parameters: list[torch.nn.Parameter], limit: float | None) -> Tensor:
    """The norm of all gradients together, which are scaled down where it is over the `limit`."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def load_moments(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take back the moments; the recipe's own settings stay, so that a resumed run may change them."""
    current = optimizer.state_dict()["param_groups"]
    kept = [{**mine, "params": theirs["params"]} for mine, theirs in zip(current, state["param_groups"], strict=True)]
    optimizer.load_state_dict({"state": state["state"], "param_groups": kept})
    for parameter, found in optimizer.state.items():
        for name in MOMENTS:
            # In the parameter's own order of memory: fused updates go through all three as they lie there.
            found[name] = torch.empty_like(parameter).copy_(found[name])
