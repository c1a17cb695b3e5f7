"""Schedules: end points, shape and purity."""

from __future__ import annotations

import math

import pytest
from ebmkit_schedules.schedules import Constant, Cosine, CosineRestarts, Geometric, Linear
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ebmkit import Schedule

FALLING: list[Schedule] = [
    Linear(Linear.Options(start=3.0, end=0.5)),
    Cosine(Cosine.Options(start=3.0, end=0.5)),
    Geometric(Geometric.Options(start=3.0, end=0.5)),
]
ALL = [*FALLING, CosineRestarts(CosineRestarts.Options(start=3.0, end=0.5, cycles=3, growth=2.0))]


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: s.name)
def test_ends_are_exact(schedule: Schedule) -> None:
    assert schedule(0.0) == 3.0
    assert schedule(1.0) == 0.5


@pytest.mark.parametrize("schedule", FALLING, ids=lambda s: s.name)
def test_they_fall_all_the_way(schedule: Schedule) -> None:
    values = [schedule(i / 100) for i in range(101)]
    assert all(a > b for a, b in zip(values, values[1:], strict=False))


@given(progress=st.floats(0, 1), order=st.lists(st.floats(0, 1), max_size=5))
def test_values_stay_between_the_ends_and_do_not_depend_on_what_was_asked_before(
    progress: float, order: list[float]
) -> None:
    for schedule in ALL:
        value = schedule(progress)
        assert 0.5 - 1e-12 <= value <= 3.0 + 1e-12
        for other in order:
            schedule(other)
        assert schedule(progress) == value


@given(start=st.floats(-1e6, 1e6), end=st.floats(-1e6, 1e6))
def test_linear_and_cosine_meet_in_the_middle(start: float, end: float) -> None:
    for kind in (Linear, Cosine):
        assert kind(kind.Options(start=start, end=end))(0.5) == pytest.approx((start + end) / 2, abs=1e-6)


def test_geometric_has_one_factor() -> None:
    schedule = Geometric(Geometric.Options(start=8.0, end=0.5))
    assert [schedule(i / 4) for i in range(5)] == pytest.approx([8, 4, 2, 1, 0.5])


def test_constant() -> None:
    assert {Constant(Constant.Options(value=0.3))(p) for p in (0.0, 0.4, 1.0)} == {0.3}


def test_cosine_is_a_cosine() -> None:
    assert Cosine(Cosine.Options(start=2.0))(0.25) == pytest.approx(1 + math.cos(math.pi / 4))


def test_restarts_are_where_they_should_be() -> None:
    equal = CosineRestarts(CosineRestarts.Options(start=1.0, end=0.0, cycles=4))
    for cycle in range(4):
        assert equal(cycle / 4) == pytest.approx(1.0)
        assert equal((cycle + 1) / 4 - 1e-6) == pytest.approx(0.0, abs=1e-6)
    growing = CosineRestarts(CosineRestarts.Options(start=1.0, end=0.0, cycles=3, growth=2.0))
    for begin in (0, 1 / 7, 3 / 7):
        assert growing(begin + 1e-9) == pytest.approx(1.0)
    assert growing(1 / 7 - 1e-6) == pytest.approx(0.0, abs=1e-6)
    assert growing(2 / 7) == pytest.approx(0.5)


def test_one_cycle_is_the_plain_cosine() -> None:
    once = CosineRestarts(CosineRestarts.Options(start=3.0, end=0.5, cycles=1))
    plain = Cosine(Cosine.Options(start=3.0, end=0.5))
    assert [once(i / 20) for i in range(21)] == pytest.approx([plain(i / 20) for i in range(21)])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Geometric, {"start": 0.0, "end": 1.0}),
        (Geometric, {"start": 1.0, "end": -1.0}),
        (CosineRestarts, {"start": 1.0, "cycles": 0}),
        (Linear, {"end": 1.0}),
        (Linear, {"start": float("nan")}),
        (Constant, {"value": "0.3"}),
    ],
)
def test_nonsense_is_refused(kind: type[Schedule], options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        kind.Options(**options)


def test_equal_options_are_equal_schedules() -> None:
    assert Linear(Linear.Options(start=1.0)) == Linear(Linear.Options(start=1.0))
    assert Linear(Linear.Options(start=1.0)) != Linear(Linear.Options(start=2.0))
    assert Linear(Linear.Options(start=1.0)) != Cosine(Cosine.Options(start=1.0))
