"""Every fault of the campaign once."""

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


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str, place: Place, tmp_path: Path) -> None:
    try:
        print(FAULTS[name](place, tmp_path / "run"))
    except Unavailable as error:
        pytest.skip(str(error))
