"""The interfaces that plugins implement, one module for each kind. Importing this package never imports torch.

One sign convention everywhere: energy is **low on data**, `p_t(x) ~ exp(-f(x, t))` (eq. 5, 8). Sampling descends `f`;
training lowers `f` on data and raises it on samples.

Shapes: `x` is `[B, C, H, W]`, float, data scaled to [-1, 1]; `t` is `[B]`, int64, one time step in `{1..T}` per sample;
energies are `[B]`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ebmkit.interfaces.base import BaseOptions, Component, Context, EnergyFunction, Metrics
from ebmkit.interfaces.buffer import Buffer, Draw
from ebmkit.interfaces.energy import Energy
from ebmkit.interfaces.feature_extractor import FeatureExtractor
from ebmkit.interfaces.objective import BufferedObjective, Chains, Objective
from ebmkit.interfaces.regularizer import Pairs, Regularizer, Term
from ebmkit.interfaces.sampler import NoiseSource, Sampler, SweepBudget
from ebmkit.interfaces.schedule import Schedule
from ebmkit.interfaces.tracker import Tracker
from ebmkit.kinds import KINDS

PLUGIN_API = 1
"""Version of these interfaces. A plugin module states the version that it was written for as `PLUGIN_API = 1`."""

INTERFACES: Mapping[str, type] = {
    "energy": Energy,
    "sampler": Sampler,
    "buffer": Buffer,
    "regularizer": Regularizer,
    "schedule": Schedule,
    "objective": Objective,
    "tracker": Tracker,
    "feature_extractor": FeatureExtractor,
}
"""The abstract class of each kind."""

__all__ = [
    "INTERFACES",
    "KINDS",
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
    "Metrics",
    "NoiseSource",
    "Objective",
    "Pairs",
    "Regularizer",
    "Sampler",
    "Schedule",
    "SweepBudget",
    "Term",
    "Tracker",
]
