"""What images are compared by: their pixels, what the energy's last layer sees of them, or a feature extractor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ebmkit.errors import BadInput
from ebmkit.metrics.names import OWN_FEATURES
from ebmkit.metrics.networks import bind_extractor, own
from ebmkit.model import Model
from ebmkit.registry import default_registry, suggest

Features = Callable[[Tensor], Tensor]
"""From images `[B, C, H, W]` in [-1, 1] to features `[B, F]` on the CPU."""

LAST_STEP = 1
"""The time step at which the energy looks at finished images."""


def features_of(name: str, model: Model) -> Features:
    """The features of this name: "pixels", "energy", or a feature extractor's.

    Raises `BadInput` for an unknown one, and where the energy has none.
    """
    if name in FEATURES:
        return FEATURES[name](model)
    extractors = default_registry().names("feature_extractor")
    if name not in extractors:
        hint = suggest(name, [*FEATURES, *extractors]) or f"; use one of {', '.join([*FEATURES, *extractors])}"
        raise BadInput(f"unknown features '{name}'{hint}")
    network = own(bind_extractor(name), model.recipe.context(model.device))
    return lambda x: network.compute(x)[OWN_FEATURES]


def _pixels(model: Model) -> Features:
    return lambda x: x.float().flatten(1).cpu()


def _energy(model: Model) -> Features:
    """The input of the last linear layer that gives the energy, at t = 1."""
    last = [layer for layer in model.energy.modules() if isinstance(layer, nn.Linear) and layer.out_features == 1]
    if not last:
        raise BadInput(
            f"energy '{model.recipe.energy.name}' has no last linear layer whose input could be compared; "
            "compare by pixels"
        )

    def features(x: Tensor) -> Tensor:
        with _inputs_of(last[-1]) as seen:
            model(x, LAST_STEP)
        if len(seen) != 1:
            raise BadInput(
                f"energy '{model.recipe.energy.name}' uses its last linear layer {len(seen)} times; compare by pixels"
            )
        return seen[0].float().flatten(1).cpu()

    return features


@contextmanager
def _inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        yield seen
    finally:
        handle.remove()


FEATURES: dict[str, Callable[[Model], Features]] = {"pixels": _pixels, "energy": _energy}


def normalized(features: Features, x: Tensor, batch_size: int) -> Tensor:
    """Features of length 1, `[B, F]`, of images `x[B, C, H, W]`, so many at a time."""
    return torch.cat([nn.functional.normalize(features(part), dim=1) for part in torch.split(x, batch_size)])
