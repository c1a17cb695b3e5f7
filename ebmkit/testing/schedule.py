"""The contract of schedules."""

from __future__ import annotations

import math
from typing import Any

from ebmkit.binder import Binder
from ebmkit.interfaces import BaseOptions
from ebmkit.registry import default_registry
from ebmkit.schedule_option import ScheduleOption, to_plain
from ebmkit.testing.contract import Contract, require
from ebmkit.testing.globals import seeded, unchanged_globals


class _Holder(BaseOptions):
    """A component's options, one of which is a schedule."""

    strength: ScheduleOption


PLACES = [i / 100 for i in range(101)]


class ScheduleContract(Contract):
    """What options that are schedules rely on: a pure function of progress, made from options alone."""

    # Schedules are built without a context, and have none.
    test_problems_are_messages = None  # type: ignore[assignment]

    def build(self, **changes: Any) -> Any:
        """The schedule."""
        return self.component(self.bound_options())

    def _build_from(self, options: Any) -> Any:
        return self.component(options)

    def test_gives_a_finite_number_everywhere(self) -> None:
        """At every progress in [0, 1], both ends included, the value is a finite number; ebmkit makes a float of it."""
        schedule = self.build()
        for progress in PLACES:
            value = schedule(progress)
            require(
                type(value) is float and math.isfinite(value),
                f"at progress {progress:g} the value is {value!r} ({type(value).__name__}): return a finite number",
            )

    def test_is_pure(self) -> None:
        """The value depends on progress and options only: not on earlier calls, other objects or random numbers."""
        first = self.build()
        with unchanged_globals("the schedule"):
            values = [first(progress) for progress in PLACES]
        with seeded(99):
            backwards = [first(progress) for progress in reversed(PLACES)]
        other = self.build()
        require(
            values == backwards[::-1],
            "the value changes with earlier calls or random numbers: a resumed run starts in the middle, so a "
            "schedule keeps no state and draws nothing",
        )
        require(
            values == [other(progress) for progress in PLACES], "two schedules of the same options have other values"
        )

    def test_is_equal_where_its_options_are(self) -> None:
        """Schedules of equal options are equal and hash alike: recipes and options are compared."""
        first, other = self.build(), self.build()
        require(
            first == other and hash(first) == hash(other),
            "two schedules of the same options are not equal: leave __eq__ and __hash__ as ebmkit.Schedule has them",
        )

    def test_can_be_an_option(self) -> None:
        """As the value of another component's option it stands in a recipe, and comes back from there."""
        binder = Binder(self.registry or default_registry())
        table = {"strength": to_plain(self.build())}
        options = binder.options(_Holder, table, "options")
        told = "; ".join(f"{problem.path} {problem.message}" for problem in binder.problems)
        require(options is not None, f"as an option it does not bind again from {table}: {told}")
        assert options is not None
        values = [options.strength(progress) for progress in PLACES]
        require(
            values == [self.build()(progress) for progress in PLACES],
            f"read from a recipe as {table} it has other values: everything that matters must be an option",
        )
