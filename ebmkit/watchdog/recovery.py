"""Where a run goes back to, and what a person is told when that is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ebmkit.run_folder import RunFolder
from ebmkit.watchdog.journal import JOURNAL, PENALTY, ROLLBACK, sentence

if TYPE_CHECKING:
    from ebmkit.watchdog.watchdog import Alarm, Watchdog

TRIES = 3
"""Rollbacks to the same checkpoint; the next one goes to an older one: it may have been diverging already."""

BOUND = "choose a smaller optimizer.learning_rate or sampler.step_size, or a larger penalty weight"
ADVICE = {
    "not_finite": f"{BOUND}; or look for what is not finite in plugins",
    "update": "choose a smaller optimizer.learning_rate",
    "spread": "choose another sampler.step_size (`ebmkit tune`) or sampler.noise",
    "duplicates": "choose another sampler.step_size (`ebmkit tune`), or more sampler.noise",
    "saturation": "choose a smaller sampler.step_size (`ebmkit tune`)",
}


def target(run: RunFolder, events: Sequence[Mapping[str, Any]]) -> int | None:
    """The step of the newest checkpoint that was not gone back to `TRIES` times; None for the beginning."""
    tried = [event.get("to") for event in events if event["action"] == ROLLBACK]
    return next((step for step, _ in reversed(run.complete_checkpoints()) if tried.count(step) < TRIES), None)


def diagnosis(run: RunFolder, alarm: Alarm, step: int, watchdog: Watchdog) -> str:
    """What happened, what was tried, and what a person may do."""
    saved, events = run.complete_checkpoints(), watchdog.journal.events
    lines = [f"{run.folder}: training diverges: {alarm.cause} (noticed at step {step})"]
    tried = [event for event in events if event["action"] in (PENALTY, ROLLBACK)]
    if tried:
        lines.append(f"tried before ({len(tried)}, in {run.folder / JOURNAL}):")
        lines += [f"  step {event['step']}: {sentence(event)}" for event in tried[-5:]]
    kept = f"the checkpoint of step {saved[-1][0]} is untouched: --resume" if saved else "start again"
    lines.append(f"{kept}, and {ADVICE.get(alarm.symptom, BOUND)} (docs: watchdog)")
    return "\n".join(lines)
