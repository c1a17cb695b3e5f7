"""Where a run goes back to, and what a person is told when that is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ebmkit.run_folder import RunFolder
from ebmkit.watchdog.journal import JOURNAL, ROLLBACKS, sentence

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


def target(run: RunFolder, events: Sequence[Mapping[str, Any]], damaged: Collection[int] = ()) -> int | None:
    """The step of the newest checkpoint that was not gone back to `TRIES` times, or else of the oldest one.

    None, which is the beginning, only where there is none yet: what a run has reached is not thrown away.
    """
    tried = Counter[int]()
    for event in events:
        if event["action"] in ROLLBACKS:
            to = int(event.get("to", 0))
            # Later checkpoints of these steps are other ones.
            tried = Counter({step: count for step, count in tried.items() if step <= to})
            tried[to] += 1
    steps = [step for step, _ in run.complete_checkpoints() if step not in damaged]
    return next((step for step in reversed(steps) if tried[step] < TRIES), min(steps, default=None))


def diagnosis(run: RunFolder, alarm: Alarm, step: int, watchdog: Watchdog) -> str:
    """What happened, what was tried, and what a person may do."""
    saved, events = run.complete_checkpoints(), watchdog.journal.events
    lines = [f"{run.folder}: training diverges: {alarm.cause} (noticed at step {step})"]
    tried = [event for event in events if event["action"] in ROLLBACKS]
    if tried:
        lines.append(f"tried before ({len(tried)}, in {run.folder / JOURNAL}):")
        lines += [f"  step {event['step']}: {sentence(event)}" for event in tried[-5:]]
    kept = f"the checkpoint of step {saved[-1][0]} is untouched: --resume" if saved else "start again"
    lines.append(f"{kept}, and {ADVICE.get(alarm.symptom, BOUND)} (docs: watchdog)")
    return "\n".join(lines)
