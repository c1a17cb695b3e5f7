"""Looks at a run from time to time, and raises an alarm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ebmkit.distributed.world import World
from ebmkit.interfaces import Pairs
from ebmkit.watchdog.guard import Guard
from ebmkit.watchdog.journal import COUNTED, PENALTY, RESTART, ROLLBACK, ROLLBACKS, SKIP, Journal
from ebmkit.watchdog.options import WatchdogOptions
from ebmkit.watchdog.symptoms import measure, root_mean_square, wrong

AT_ONCE = ("update",)
"""Symptoms that do not depend on a batch: nothing is gained by looking again."""
RUNAWAY = ("energy_gap", "energy_range", "spread", "chains", "gradient")
"""Symptoms of energies without a bound."""
MOST_RESTARTS = 0.5
"""With more of the drawn chains started again than this share, they are not single ones that went astray."""


@dataclass(frozen=True)
class Alarm:
    """Training diverges: the `symptom`, and the `cause` in words."""

    symptom: str
    cause: str


class Diverged(Exception):
    """Raised within a step that an alarm ends."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(alarm.cause)
        self.alarm = alarm


class Watchdog:
    """One run's watchdog, the same on all ranks."""

    def __init__(
        self, options: WatchdogOptions, guard: Guard, journal: Journal, time_steps: int, bound: float | None
    ) -> None:
        self.options, self.guard, self.journal = options, guard, journal
        self.time_steps, self.bound = time_steps, bound
        self.weights: Sequence[Tensor] = ()
        """The network's, once there is one."""
        self.waiting: dict[str, int] = {}
        """For each symptom, at how many looks in a row it was there."""
        self.looked_at: int | None = None

    @property
    def rollbacks(self) -> int:
        """Rollbacks so far, in all processes of the run."""
        return self.journal.count(*ROLLBACKS)

    @property
    def learning_rate_factor(self) -> float:
        """What the recipe's learning rate is multiplied by."""
        return float(self.options.learning_rate_factor ** self.journal.count(ROLLBACK))

    @property
    def acts(self) -> bool:
        """Whether updates are skipped and chains started again."""
        return self.options.mode != "off"

    @property
    def recovers(self) -> bool:
        """Whether the next alarm is answered by a rollback."""
        return self.options.mode == "recover" and self.rollbacks < self.options.max_rollbacks

    @property
    def doubts(self) -> bool:
        """Whether something was wrong at the last look, which is no alarm yet."""
        return bool(self.waiting)

    def needs_penalty(self, alarm: Alarm) -> bool:
        """Whether the recipe lets energies run away, as they do, and no penalty was added yet."""
        unbounded = self.bound is None and bool(self.options.penalty) and not self.journal.count(PENALTY)
        return unbounded and alarm.symptom in RUNAWAY

    @property
    def actions(self) -> dict[str, float]:
        """How much was done so far, for the metrics."""
        return {name: self.journal.count(*actions) for name, actions in COUNTED.items()}

    def look(self, step: int, pairs: Pairs | None, metrics: Mapping[str, Tensor], world: World) -> Alarm | None:
        """Read the guard and the last batch, note what was skipped or restarted, and say what is wrong, if anything.

        `metrics` are the step's, to name those that are not finite. All ranks call it and get the same answer.
        """
        if self.looked_at == step:
            return None
        self.looked_at = step
        found: dict[str, float] = {}
        if pairs is not None and self.acts:
            found = measure(pairs, self.time_steps, self.bound)
            found["update"] = float(metrics["learning_rate"]) / root_mean_square(self.weights)
        bad = [name for name, value in metrics.items() if not math.isfinite(float(value))]
        rows = world.all_gather((self.guard.read(), found, bad))
        counts = {name: sum(row[0][name] for row in rows) for name in rows[0][0]}
        # Every rank makes the same updates.
        counts |= {name: rows[0][0][name] for name in ("updates", "skipped", "not_finite", "in_a_row")}
        means = {
            name: sum(values) / len(values)
            for name in dict.fromkeys(name for row in rows for name in row[1])
            for values in [[row[1][name] for row in rows if name in row[1]]]
        }
        culprits = sorted({name for row in rows for name in row[2]} - {"loss", "gradient_norm"})
        return self._judged(step, counts, means, culprits)

    def _judged(
        self, step: int, counts: Mapping[str, int], found: Mapping[str, float], culprits: list[str]
    ) -> Alarm | None:
        options = self.options
        of = f" ({', '.join(culprits[:4])})" if culprits else ""
        if counts["not_finite"]:
            bad = f"the loss or its gradient is not finite{of}"
        else:
            bad = f"a gradient norm is more than {options.gradient_factor:g} times the usual one"
        if not self.acts:
            finite = not counts["not_finite"] and not counts["bad_loss"]
            return None if finite else Alarm("not_finite", f"the loss or its gradient is not finite any more{of}")
        if counts["skipped"]:
            self.journal.add(SKIP, step, bad, count=counts["skipped"])
        if counts["restarted"]:
            limit = f"not finite, or beyond {options.chain_limit:g}"
            self.journal.add(RESTART, step, limit, count=counts["restarted"])
        if counts["lost"]:
            self.journal.add(RESTART, step, "the sampler made them not finite", count=counts["lost"])
        if counts["in_a_row"] >= options.max_skips:
            symptom = "not_finite" if counts["not_finite"] else "gradient"
            return Alarm(symptom, f"{counts['in_a_row']} updates in a row were skipped: {bad}")
        if counts["bad_loss"]:
            return Alarm("not_finite", f"the loss is not finite{of}, while its gradient is")
        told = wrong(found, options)
        mended = counts["restarted"] + counts["lost"]
        if mended > MOST_RESTARTS * counts["drawn"]:
            told["chains"] = f"{mended} of {counts['drawn']} chains had left the range, or were not finite"
        if counts["skipped"] > MOST_RESTARTS * counts["updates"]:
            told["gradient"] = f"{counts['skipped']} of {counts['updates']} updates were skipped: {bad}"
        self.waiting = {name: self.waiting.get(name, 0) + 1 for name in told}
        for name, looks in self.waiting.items():
            if looks >= options.patience or name in AT_ONCE:
                return Alarm(name, told[name])
        return None

    def forget(self) -> None:
        """After a rollback: nothing that was seen before counts."""
        self.guard.forget()
        self.waiting, self.looked_at = {}, None

    def state_dict(self) -> dict[str, Any]:
        """What decides about the next steps; what was done is in the journal."""
        return {**self.guard.state_dict(), "waiting": dict(self.waiting)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.waiting = dict(state["waiting"])
        self.guard.load_state_dict({name: value for name, value in state.items() if name != "waiting"})
