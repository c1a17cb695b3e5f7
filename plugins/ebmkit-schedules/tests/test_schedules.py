"""Schedules: exact ends, shape in between, restarts, and purity."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from ebmkit_schedules.schedules import Constant, Cosine, CosineRestarts, Geometric, Linear
from hypothesis import given
from hypothesis import strategies as st

from ebmkit import Schedule
from ebmkit.testing import ScheduleContract

FALLING = [Linear, Cosine, CosineRestarts, Geometric]
values = st.floats(-1e6, 1e6)
positive = st.floats(1e-9, 1e9)
progresses = st.floats(0, 1)


def make(kind: type[Schedule], **options: Any) -> Schedule:
    return kind(kind.Options(**options))


def between(value: float, start: float, end: float) -> bool:
    slack = 1e-12 * max(abs(start), abs(end))
    return min(start, end) - slack <= value <= max(start, end) + slack


@given(start=values, end=values)
@pytest.mark.parametrize("kind", [Linear, Cosine, CosineRestarts])
def test_the_ends_are_exact(kind: type[Schedule], start: float, end: float) -> None:
    schedule = make(kind, start=start, end=end)
    assert schedule(0.0) == start
    assert schedule(1.0) == end


@given(start=positive, end=positive)
def test_the_ends_of_a_geometric_schedule_are_exact(start: float, end: float) -> None:
    schedule = make(Geometric, start=start, end=end)
    assert schedule(0.0) == start
    assert schedule(1.0) == end


@given(start=values, end=values, progress=progresses)
@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_values_lie_between_the_ends(kind: type[Schedule], start: float, end: float, progress: float) -> None:
    assert between(make(kind, start=start, end=end)(progress), start, end)


@given(start=positive, end=positive, progress=progresses)
def test_geometric_values_lie_between_the_ends(start: float, end: float, progress: float) -> None:
    assert between(make(Geometric, start=start, end=end)(progress), start, end)


@given(
    start=values,
    end=values,
    cycles=st.integers(1, 100),
    growth=st.floats(0, 10, exclude_min=True),
    progress=progresses,
)
def test_restarting_values_lie_between_the_ends(
    start: float, end: float, cycles: int, growth: float, progress: float
) -> None:
    schedule = make(CosineRestarts, start=start, end=end, cycles=cycles, growth=growth)
    assert between(schedule(progress), start, end)
    assert schedule(1.0) == end
    assert schedule(0.0) == start


@given(value=values, progress=progresses)
def test_constant_is_constant(value: float, progress: float) -> None:
    assert make(Constant, value=value)(progress) == value


@pytest.mark.parametrize("kind", [Linear, Cosine, Geometric])
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.1), (0.1, 1.0)])
def test_without_restarts_values_go_one_way(kind: type[Schedule], start: float, end: float) -> None:
    found = [make(kind, start=start, end=end)(i / 200) for i in range(201)]
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert all(step < 0 for step in steps) if start > end else all(step > 0 for step in steps)


def test_known_values() -> None:
    assert make(Linear, start=0.3)(0.5) == pytest.approx(0.15)
    assert make(Linear, start=1.0, end=3.0)(0.25) == pytest.approx(1.5)
    assert make(Cosine, start=2.0, end=0.0)(0.5) == pytest.approx(1.0)
    assert make(Cosine, start=1.0, end=0.0)(1 / 3) == pytest.approx(0.75)
    assert make(Geometric, start=1.0, end=1e-4)(0.5) == pytest.approx(1e-2)
    ratios = [make(Geometric, start=8.0, end=1.0)(i / 3) for i in range(4)]
    assert ratios == pytest.approx([8.0, 4.0, 2.0, 1.0])


@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_equal_cycles_restart_at_equal_distances(cycles: int) -> None:
    schedule, cosine = make(CosineRestarts, start=1.0, end=0.2, cycles=cycles), make(Cosine, start=1.0, end=0.2)
    for cycle in range(cycles):
        assert schedule(cycle / cycles) == 1.0
        assert schedule((cycle + 0.5) / cycles) == pytest.approx(cosine(0.5))
        assert schedule(math.nextafter((cycle + 1) / cycles, 0)) == pytest.approx(0.2, abs=1e-9)


def test_growing_cycles_restart_where_their_lengths_say() -> None:
    schedule = make(CosineRestarts, start=1.0, end=0.0, cycles=3, growth=2.0)
    # Lengths 1, 2 and 4 of 7.
    for restart in (0, 1 / 7, 3 / 7):
        assert schedule(restart + 1e-9) == pytest.approx(1.0)
    for end in (1 / 7, 3 / 7, 1):
        assert schedule(end - 1e-9) == pytest.approx(0.0, abs=1e-9)
    for middle in (0.5 / 7, 2 / 7, 5 / 7):
        assert schedule(middle) == pytest.approx(0.5)
    count = sum(schedule((i + 1) / 700) > schedule(i / 700) + 0.5 for i in range(700))
    assert count == 2


@pytest.mark.parametrize("kind", FALLING)
def test_schedules_are_pure_and_compare_by_their_options(kind: type[Schedule]) -> None:
    schedule = make(kind, start=0.9, end=0.1)
    progress = [0.7, 0.1, 1.0, 0.0, 0.7]
    assert [schedule(p) for p in progress] == [schedule(p) for p in progress]
    assert schedule(0.7) == make(kind, start=0.9, end=0.1)(0.7)
    assert schedule == make(kind, start=0.9, end=0.1)
    assert hash(schedule) == hash(make(kind, start=0.9, end=0.1))
    assert schedule != make(kind, start=0.9, end=0.2)
    assert schedule != make(Constant, value=0.9)


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [
        (Geometric, {"start": 0.0, "end": 1.0}, "start"),
        (Geometric, {"start": 1.0, "end": -1.0}, "end"),
        (Geometric, {"start": 1.0}, "end"),
        (Linear, {}, "start"),
        (Linear, {"start": math.inf}, "start"),
        (CosineRestarts, {"start": 1.0, "cycles": 0}, "cycles"),
        (CosineRestarts, {"start": 1.0, "growth": 0.0}, "growth"),
        (Constant, {"value": True}, "value"),
    ],
)
def test_options_out_of_range_are_refused(kind: type[Schedule], options: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        kind.Options(**options)


class TestConstantContract(ScheduleContract):
    component = Constant


class TestLinearContract(ScheduleContract):
    component = Linear


class TestCosineContract(ScheduleContract):
    component = Cosine


class TestCosineRestartsContract(ScheduleContract):
    component = CosineRestarts
    options = {"start": 1.0, "end": 0.1, "cycles": 3, "growth": 2.0}


class TestGeometricContract(ScheduleContract):
    component = Geometric


@given(start=values, end=values, until=st.floats(0.01, 1), progress=progresses)
def test_a_line_may_end_early(start: float, end: float, until: float, progress: float) -> None:
    schedule = make(Linear, start=start, end=end, until=until)
    if progress >= until:
        assert schedule(progress) == end
    else:
        assert schedule(progress) == pytest.approx(make(Linear, start=start, end=end)(progress / until))
