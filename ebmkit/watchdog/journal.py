"""`watchdog.jsonl` in the run folder: everything that the watchdog did, in order; only ever appended to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ebmkit.json_lines import append_line, read_lines

JOURNAL = "watchdog.jsonl"
SKIP, RESTART, PENALTY, ROLLBACK, STOP = ACTIONS = ("skip", "restart", "penalty", "rollback", "stop")
ROLLBACKS = (PENALTY, ROLLBACK)
"""Both go back; the one adds a penalty to the recipe, the other lowers the learning rate."""
COUNTED = {"skipped_updates": (SKIP,), "restarted_chains": (RESTART,), "rollbacks": ROLLBACKS}
"""Metrics that count actions. They are nothing to look at while they are 0."""
LARGEST = 2**63
TOLD = 5
"""Lines of the same action and cause that a person is told; the others are only counted."""


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The events of a run, oldest first."""
    return [event for event in read_lines(folder / JOURNAL) if _is_event(event)]


def _is_event(value: Mapping[str, Any]) -> bool:
    """Whether this is one of ours: a report reads the run folders of others."""
    numbers = ("step", "count", "to", "learning_rate_factor")
    return (
        value.get("action") in ACTIONS
        # False for NaN as well.
        and all(isinstance(value.get(name, 0), int | float) and abs(value.get(name, 0)) < LARGEST for name in numbers)
        and all(isinstance(value.get(name, ""), str) for name in ("cause", "time", "use"))
    )


class Journal:
    """The events of a run, and how often each action was taken."""

    def __init__(self, folder: Path, events: Iterable[Mapping[str, Any]], write: bool, say: Callable[[str], None]):
        self.path, self.writes, self.say = folder / JOURNAL, write, say
        self.events = [dict(event) for event in events]
        self.counts = count_events(self.events)
        self.told: dict[tuple[str, str], int] = {}

    def add(self, action: str, step: int, cause: str, **more: Any) -> None:
        """Write an event to disk before anything follows from it, and tell it."""
        event = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), "step": step, "action": action}
        event |= {"cause": cause, **more}
        self.events.append(event)
        self.counts += count_events([event])
        if self.writes:
            try:
                append_line(self.path, event)
            except OSError as error:
                self.say(f"warning: watchdog: {self.path} cannot be written: {error.strerror}")
        key = action, cause if action == RESTART else ""
        self.told[key] = self.told.get(key, 0) + 1
        rare = action in ROLLBACKS
        if rare or self.told[key] <= TOLD:
            last = f" (further ones are only counted, in {self.path})" if self.told[key] == TOLD and not rare else ""
            self.say(f"warning: watchdog: step {step}: {sentence(event)}{last}")

    def count(self, *actions: str) -> int:
        """How often these were done."""
        return sum(self.counts[action] for action in actions)


def count_events(events: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How often each action was taken: updates skipped, chains started again, rollbacks."""
    counts = Counter[str]()
    for event in events:
        counts[event["action"]] += int(event.get("count", 1))
    return counts


def sentence(event: Mapping[str, Any]) -> str:
    """An event in words, without its step."""
    action, cause, count = event["action"], event.get("cause", ""), event.get("count", 1)
    if action == SKIP:
        return f"{count} update{'s' if count != 1 else ''} skipped: {cause}"
    if action == RESTART:
        return f"{count} chain{'s' if count != 1 else ''} started again: {cause}"
    if action in ROLLBACKS:
        to, use = event.get("to"), event.get("use")
        where = f"to the checkpoint of step {to}" if to else "to the beginning, with new weights"
        added = f" with {use}, which bounds input gradients, added to the recipe" if use else ""
        return f"rolled back {where}{added}, learning rate x{event.get('learning_rate_factor', 1.0):.3g}: {cause}"
    return f"training ended: {cause}"
