"""What all kinds of component share. Importing this module never imports torch."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

Metrics: TypeAlias = "Mapping[str, Tensor]"
"""Named scalars to log, as detached tensors: they are read late, so that a step never waits for the device."""

EnergyFunction: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""`f(x[B, C, H, W], t[B]) -> energy[B]`."""


class BaseOptions(BaseModel):
    """Base of every component's nested `Options`: frozen, strictly typed, unknown keys forbidden."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )


@dataclass(frozen=True)
class Context:
    """What a component may know of the run that it is built for, and nothing else.

    `image_shape` is `(C, H, W)`, `time_steps` is T, `device` a torch device string.
    """

    image_shape: tuple[int, int, int]
    time_steps: int
    device: str = "cpu"
    rank: int = 0
    world_size: int = 1
    seed: int = 0


class Component(ABC):
    """What all kinds share: a `name` for recipes, a docstring for `ebmkit describe`, and typed `Options`."""

    kind: ClassVar[str]
    name: ClassVar[str]

    class Options(BaseOptions):
        """No options."""

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options
        self.context = context

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """What is wrong with `options` in this `context`, for `ebmkit check`; runs without torch or a device.

        A message that begins with an option's name and a colon is shown at that key of the recipe.
        """
        return []
