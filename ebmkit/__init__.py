"""ebmkit: train image energy-based models from plugins, recipes and WebDataset shards.

The names below are the public interface. They are imported when they are first used, so that `ebmkit --help` waits for
neither torch nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebmkit.errors import BadData, BadInput, DataError, EbmkitError, PluginMissing, RecipeError, TrainingFailed
from ebmkit.kinds import KINDS

if TYPE_CHECKING:
    from ebmkit.api import (
        check,
        check_plugin,
        describe,
        evaluate,
        export,
        likelihood,
        list_plugins,
        load,
        new_plugin,
        ood,
        plot_curves,
        plot_energies,
        plot_histogram,
        plot_interpolation,
        plot_neighbours,
        plot_trajectory,
        push,
        report,
        save_images,
        schema,
        sweep,
        train,
        tune,
    )
    from ebmkit.data import make_shards
    from ebmkit.energy_model import EnergyModel
    from ebmkit.fast.energy import energy_gradient
    from ebmkit.hookspecs import hookimpl
    from ebmkit.interfaces import (
        PLUGIN_API,
        BaseOptions,
        Buffer,
        BufferedObjective,
        Chains,
        Component,
        Context,
        Draw,
        Energy,
        EnergyFunction,
        FeatureExtractor,
        NoiseSource,
        Objective,
        Pairs,
        Regularizer,
        Sampler,
        Schedule,
        SweepBudget,
        Term,
        Tracker,
    )
    from ebmkit.model import Model
    from ebmkit.run_folder import RunInfo
    from ebmkit.schedule_option import ScheduleOption

__version__ = "0.1.0"

_INTERFACES = (
    "PLUGIN_API",
    "BaseOptions",
    "Buffer",
    "BufferedObjective",
    "Chains",
    "Component",
    "Context",
    "Draw",
    "Energy",
    "EnergyFunction",
    "FeatureExtractor",
    "NoiseSource",
    "Objective",
    "Pairs",
    "Regularizer",
    "Sampler",
    "Schedule",
    "SweepBudget",
    "Term",
    "Tracker",
)
_LAZY = {
    **dict.fromkeys(_INTERFACES, "ebmkit.interfaces"),
    "RunInfo": "ebmkit.run_folder",
    "ScheduleOption": "ebmkit.schedule_option",
    "hookimpl": "ebmkit.hookspecs",
    "EnergyModel": "ebmkit.energy_model",
    "Model": "ebmkit.model",
    "check": "ebmkit.api",
    "check_plugin": "ebmkit.api",
    "describe": "ebmkit.api",
    "energy_gradient": "ebmkit.fast.energy",
    "evaluate": "ebmkit.api",
    "export": "ebmkit.api",
    "likelihood": "ebmkit.api",
    "list_plugins": "ebmkit.api",
    "load": "ebmkit.api",
    "save_images": "ebmkit.api",
    "make_shards": "ebmkit.data",
    "new_plugin": "ebmkit.api",
    "plot_curves": "ebmkit.api",
    "plot_energies": "ebmkit.api",
    "plot_histogram": "ebmkit.api",
    "plot_interpolation": "ebmkit.api",
    "plot_neighbours": "ebmkit.api",
    "plot_trajectory": "ebmkit.api",
    "ood": "ebmkit.api",
    "push": "ebmkit.api",
    "report": "ebmkit.api",
    "schema": "ebmkit.api",
    "sweep": "ebmkit.api",
    "train": "ebmkit.api",
    "tune": "ebmkit.api",
}

__all__ = [
    "KINDS",
    "PLUGIN_API",
    "BadData",
    "BadInput",
    "BaseOptions",
    "Buffer",
    "BufferedObjective",
    "Chains",
    "Component",
    "Context",
    "DataError",
    "Draw",
    "EbmkitError",
    "Energy",
    "EnergyFunction",
    "EnergyModel",
    "FeatureExtractor",
    "Model",
    "NoiseSource",
    "Objective",
    "Pairs",
    "PluginMissing",
    "RecipeError",
    "Regularizer",
    "RunInfo",
    "Sampler",
    "Schedule",
    "ScheduleOption",
    "SweepBudget",
    "Term",
    "Tracker",
    "TrainingFailed",
    "check",
    "check_plugin",
    "describe",
    "energy_gradient",
    "evaluate",
    "export",
    "hookimpl",
    "likelihood",
    "list_plugins",
    "load",
    "make_shards",
    "new_plugin",
    "ood",
    "plot_curves",
    "plot_energies",
    "plot_histogram",
    "plot_interpolation",
    "plot_neighbours",
    "plot_trajectory",
    "push",
    "report",
    "save_images",
    "schema",
    "sweep",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ebmkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
