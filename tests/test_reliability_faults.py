"""Every fault of the campaign once; `ebmkit train` meets them for real."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from run_helpers import ROOT

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks.reliability.faults import FAULTS, Place
from benchmarks.reliability.helpers import Unavailable


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("faults"))


ORDINARY = (
    "SIGUSR1 before training",
    "disk full, save_errors = stop",
    "read-only from the start",
    "a data worker is killed",
    "two processes in one folder",
)
"""The others take longer, or are tested elsewhere as well: signals in test_resume.py, shards in test_data_faults.py."""


@pytest.mark.parametrize(
    "name", [name if name in ORDINARY else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS]
)
def test_fault(name: str, place: Place, tmp_path: Path) -> None:
    try:
        assert FAULTS[name](place, tmp_path / "run")
    except Unavailable as error:
        pytest.skip(str(error))
