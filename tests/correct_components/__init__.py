"""Components that are unusual and right: no contract may find anything in them."""

from __future__ import annotations

from typing import Any

from correct_components.energies import CastsItsTime, GatesAtZero, NormalizesSpectra, StartsFlat
from correct_components.others import FirstInFirstOut, NumpySteps, Steps
from correct_components.samplers import HMC, MALA, ULA

CORRECT: list[type[Any]] = [
    StartsFlat,
    GatesAtZero,
    NormalizesSpectra,
    CastsItsTime,
    ULA,
    MALA,
    HMC,
    FirstInFirstOut,
    Steps,
    NumpySteps,
]
