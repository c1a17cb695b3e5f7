"""Calling the lifecycle hooks of plugins and trackers, so that none of them can hurt a run or another one."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pluggy

from ebmkit.blame import label_of
from ebmkit.errors import HookFailed
from ebmkit.interfaces import Context
from ebmkit.plugins import lifecycle_hooks, new_manager, told
from ebmkit.process_settings import kept
from ebmkit.recipe import Part
from ebmkit.registry import Registry
from ebmkit.run_folder import RunInfo

ERROR_LOG = "hook-errors.log"
"""In the run folder: the tracebacks of hooks that raised an error."""


@dataclass
class _Watcher:
    """Something with lifecycle hooks, in a manager of its own, so that it is called alone."""

    label: str
    manager: pluggy.PluginManager
    hooks: tuple[str, ...]
    active: bool = True


class Lifecycle:
    """The lifecycle hooks of one run: those of every installed plugin's module, and the recipe's trackers.

    Each gets copies. A hook that raises is reported by `say`, its traceback is written to the run folder, and its
    plugin is called no more in this process; with `fatal`, `end_if_failed` raises `HookFailed` as well. With `silent`,
    as on all ranks but the first, nobody is called.
    """

    def __init__(
        self,
        registry: Registry,
        trackers: Iterable[Part],
        run: RunInfo,
        say: Callable[[str], None],
        fatal: bool = False,
        silent: bool = False,
    ) -> None:
        self.run, self.say, self.fatal = run, say, fatal
        self.failure: HookFailed | None = None
        self.watchers: list[_Watcher] = []
        for plugin in registry.loaded if not silent else ():
            self._watch(f"plugin '{plugin.plugin}' ({plugin.source})", plugin.module)
        self.parts = () if silent else tuple(trackers)

    def build(self, context: Context) -> None:
        """Build the recipe's trackers; one that cannot be built is dealt with as one whose hook raises."""
        for part in self.parts:
            label = label_of(part.component)
            with self._guarded(label, "its constructor"):
                self._watch(label, part.build(context))

    def call(self, hook: str, **arguments: Any) -> None:
        """Call `hook` of every plugin and tracker that implements it, with `run` and copies of the `arguments`."""
        for watcher in self.watchers:
            if watcher.active and hook in watcher.hooks:
                # An exception is no plain value, and its traceback cannot be copied.
                mine = {k: v if isinstance(v, BaseException) else deepcopy(v) for k, v in arguments.items()}
                with self._guarded(watcher.label, hook, watcher):
                    getattr(watcher.manager.hook, hook)(run=deepcopy(self.run), **mine)

    def end_if_failed(self) -> None:
        """Raise the first failure of a fatal hook, where everyone else has been called and all is written."""
        if self.failure is not None:
            raise self.failure

    def listens(self, hook: str) -> bool:
        """Whether anything implements `hook`; what only hooks need is not computed otherwise."""
        return any(watcher.active and hook in watcher.hooks for watcher in self.watchers)

    def _watch(self, label: str, plugin: object) -> None:
        hooks = lifecycle_hooks(plugin)
        if hooks:
            manager = new_manager()
            manager.register(plugin)
            self.watchers.append(_Watcher(label, manager, hooks))

    @contextmanager
    def _guarded(self, label: str, what: str, watcher: _Watcher | None = None) -> Iterator[None]:
        try:
            # Nothing of the process that torch or the run goes by stays changed.
            with kept():
                yield
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the plugin's code may raise anything
            if watcher is not None:
                watcher.active = False
            with suppress(OSError), (self.run.folder / ERROR_LOG).open("a", encoding="utf-8") as log:
                when = datetime.now().astimezone().isoformat(timespec="seconds")
                log.write(f"{when} {label}, {what}:\n{''.join(traceback.format_exception(error))}\n")
            message = f"{label}: {what} raised {told(error)} (traceback: {self.run.folder / ERROR_LOG})"
            if not self.fatal:
                self.say(f"warning: {message}; it is called no more in this process")
                return
            # Once is enough: what the end of the run still calls is only reported.
            self.fatal = False
            self.failure = HookFailed(
                f"{message}; train.hook_errors = 'fatal' ends the run. Once the plugin is mended, or with "
                "--set train.hook_errors=disable, --resume goes on with it"
            )
            self.failure.__cause__ = error
