"""Deliberately broken components: each has one fault, and `FAULTS` says which rule must find it and in which words.

The classes that begin with `Good` have none; the others change one thing of them.
"""

from __future__ import annotations

from ebmkit import Component, Schedule
from faulty_components.buffers import GoodBuffer
from faulty_components.common import FAULTS, Fault
from faulty_components.energies import AnswersInFloat32, EmbedsTimeInFloat32, GoodEnergy, SetsTheDefaultType
from faulty_components.every_kind import Unregistered
from faulty_components.feature_extractors import GoodFeatureExtractor
from faulty_components.objectives import GoodObjective
from faulty_components.regularizers import GoodRegularizer
from faulty_components.samplers import GoodSampler
from faulty_components.schedules import GoodSchedule
from faulty_components.trackers import GoodTracker, LeavesAutocastOn

GOOD: list[type[Component] | type[Schedule]] = [
    GoodEnergy,
    GoodSampler,
    GoodBuffer,
    GoodRegularizer,
    GoodSchedule,
    GoodObjective,
    GoodTracker,
    GoodFeatureExtractor,
]

__all__ = [
    "FAULTS",
    "GOOD",
    "AnswersInFloat32",
    "EmbedsTimeInFloat32",
    "Fault",
    "GoodBuffer",
    "GoodEnergy",
    "GoodFeatureExtractor",
    "GoodObjective",
    "GoodRegularizer",
    "GoodSampler",
    "GoodSchedule",
    "GoodTracker",
    "LeavesAutocastOn",
    "SetsTheDefaultType",
    "Unregistered",
]
