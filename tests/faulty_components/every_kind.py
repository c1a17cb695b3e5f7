"""Faults that components of every kind can have: their options, their docstring, their registration."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ConfigDict, Field

from ebmkit import (
    BaseOptions,
    Context,
)
from faulty_components.common import breaks
from faulty_components.regularizers import GoodRegularizer
from faulty_components.samplers import GoodSampler
from faulty_components.schedules import GoodSchedule


@breaks("has a docstring", "give Undocumented a docstring")
class Undocumented(GoodSchedule):
    name = "undocumented"


@breaks("every option is described", "option 'start' has no description")
class UndescribedOption(GoodSchedule):
    """Does not say what its option means."""

    class Options(BaseOptions):
        """Options."""

        start: float = 1.0
        end: float = Field(default=0.0, description="At 1.")


@breaks("every option is described", "give it one, or an example")
class OptionWithoutExample(GoodSchedule):
    """Needs an option and gives no example."""

    class Options(BaseOptions):
        """Options."""

        start: float = Field(description="At 0.")
        end: float = Field(default=0.0, description="At 1.")


@breaks("options are strict and frozen", "changes 'extra' to 'ignore'")
class IgnoresUnknownKeys(GoodSchedule):
    """Takes any key."""

    class Options(BaseOptions):
        """Options."""

        model_config = ConfigDict(extra="ignore")
        start: float = Field(default=1.0, description="At 0.")
        end: float = Field(default=0.0, description="At 1.")


@breaks("options survive a recipe", "do not bind: options.start must be at least 0")
class DefaultOutOfBounds(GoodSchedule):
    """Has a default that its bounds refuse."""

    class Options(BaseOptions):
        """Options."""

        start: float = Field(default=-1.0, ge=0, description="At 0.")
        end: float = Field(default=0.0, description="At 1.")


@breaks("options survive a recipe", "do not bind")
class ListOption(GoodSchedule):
    """Has a list where options are tuples."""

    class Options(BaseOptions):
        """Options."""

        start: float = Field(default=1.0, description="At 0.")
        end: float = Field(default=0.0, description="At 1.")
        places: list[float] = Field(default_factory=lambda: [0.5], description="Places.")


@breaks("none is the default where it is allowed", "TOML has no null")
class NoneIsNotTheDefault(GoodRegularizer):
    """Has an option that may be None, but is something else by default."""

    class Options(BaseOptions):
        """Options."""

        weight: float = Field(default=10.0, description="Weight.")
        limit: float | None = Field(default=1.0, examples=[None], description="Limit.")


@breaks("problems are messages", "problems() must return a list of sentences")
class ProblemsIsASentence(GoodSampler):
    """Returns a bare string."""

    @classmethod
    def problems(cls, options: Any, context: Context) -> Any:
        return "" if context.image_shape[0] == 3 else "three channels only"


@breaks("is built without side effects", "draws from torch's global random state")
class DrawsWhenBuilt(GoodRegularizer):
    """Draws its direction from the global generator."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.direction = torch.randn(context.image_shape)


@breaks("is found by its name", "Return the class from the plugin's hook")
class Unregistered(GoodSampler):
    """Is returned by no hook."""

    name = "unregistered"
