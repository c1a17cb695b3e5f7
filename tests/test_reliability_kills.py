"""The campaign of kills in its short form."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from run_helpers import ROOT


def test_killed_runs_end_as_undisturbed_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    kills = importlib.import_module("benchmarks.reliability.kills")
    found = kills.campaign(6, tmp_path, print)
    assert found["failures"] == []
    assert found["kills"] == 6
    assert found["unfinished"]["checkpoint"] > 0, "no kill hit the writing of a checkpoint"
