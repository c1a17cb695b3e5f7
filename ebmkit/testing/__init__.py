"""Contracts for plugin authors: subclass the one of your kind, name the component and its options, and run pytest.

The same rules are what `ebmkit check-plugin` looks at. Nothing here needs pytest.
"""

from __future__ import annotations

from collections.abc import Mapping

from ebmkit.testing.buffer import BufferContract
from ebmkit.testing.contract import Contract, ContractBroken, require, rules, skip
from ebmkit.testing.energy import EnergyContract
from ebmkit.testing.feature_extractor import FeatureExtractorContract
from ebmkit.testing.objective import ObjectiveContract
from ebmkit.testing.regularizer import RegularizerContract
from ebmkit.testing.sampler import SamplerContract
from ebmkit.testing.schedule import ScheduleContract
from ebmkit.testing.tracker import HooksContract, TrackerContract

CONTRACTS: Mapping[str, type[Contract]] = {
    "energy": EnergyContract,
    "sampler": SamplerContract,
    "buffer": BufferContract,
    "regularizer": RegularizerContract,
    "schedule": ScheduleContract,
    "objective": ObjectiveContract,
    "tracker": TrackerContract,
    "feature_extractor": FeatureExtractorContract,
}
"""The contract of each kind."""

__all__ = [
    "CONTRACTS",
    "BufferContract",
    "Contract",
    "ContractBroken",
    "EnergyContract",
    "FeatureExtractorContract",
    "HooksContract",
    "ObjectiveContract",
    "RegularizerContract",
    "SamplerContract",
    "ScheduleContract",
    "TrackerContract",
    "require",
    "rules",
    "skip",
]
