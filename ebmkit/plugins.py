"""Finding plugins and loading each on its own, so that a broken one never hurts a recipe that does not use it."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import pluggy

from ebmkit import hookspecs
from ebmkit.interfaces import INTERFACES, PLUGIN_API, BaseOptions

ENTRY_POINT_GROUP = "ebmkit"
DISABLE_VARIABLE = "EBMKIT_DISABLE_PLUGINS"
DISABLED = f"disabled by {DISABLE_VARIABLE}"
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


class Origin:
    """Where something came from, as every message says it."""

    plugin: str
    distribution: str
    version: str

    @property
    def source(self) -> str:
        """`ebmkit-r1 0.1.0`."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def label(self) -> str:
        """`r1 (ebmkit-r1 0.1.0)`."""
        return f"{self.plugin} ({self.source})"


@dataclass(frozen=True)
class Registered(Origin):
    """A component class and where it came from."""

    kind: str
    name: str
    component: type
    plugin: str
    distribution: str
    version: str

    @property
    def label(self) -> str:
        """`regularizer 'r1' (ebmkit-r1 0.1.0)`."""
        return f"{self.kind} '{self.name}' ({self.source})"


@dataclass(frozen=True)
class BrokenPlugin(Origin):
    """A plugin that was found but cannot be used, and why."""

    plugin: str
    distribution: str
    version: str
    reason: str
    module: str = ""

    @property
    def told(self) -> str:
        """Why it is not there, and what it is: a line for a list."""
        return f"{self.reason} [{self.label}]"


@dataclass(frozen=True)
class LoadedPlugin(Origin):
    """A plugin's module and its components."""

    plugin: str
    module: ModuleType
    components: tuple[Registered, ...]
    distribution: str = "unknown"
    version: str = "unknown"


class PluginFault(Exception):
    """Why a plugin is refused."""


def new_manager() -> pluggy.PluginManager:
    """A pluggy manager that knows ebmkit's hooks and no plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def discover() -> Iterator[LoadedPlugin | BrokenPlugin]:
    """Every installed plugin, in the order of their names.

    pluggy's own entry-point loader stops at the first plugin that fails; here each is loaded alone.
    """
    disabled = {canonical(name) for name in _disabled()}
    seen: set[tuple[str, str]] = set()
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: (e.name, e.value)):
        # An editable install next to its source folder can list one entry point twice.
        if (entry.name, entry.value) in seen:
            continue
        seen.add((entry.name, entry.value))
        yield (_broken(entry, DISABLED) if canonical(entry.name) in disabled else load_entry_point(entry))


def _disabled() -> list[str]:
    return [name for name in re.split(r"[,\s]+", os.environ.get(DISABLE_VARIABLE, "")) if name]


def disabled_in_vain() -> list[str]:
    """A warning for each name that is to be disabled, and that no plugin has."""
    if not _disabled():
        # To look for the installed plugins once more takes as long as it takes to import some of them.
        return []
    installed = sorted({entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)})
    known = {canonical(name): name for name in installed}
    told = []
    for name in _disabled():
        if canonical(name) not in known:
            near = get_close_matches(canonical(name), known, n=1)
            hint = f"did you mean '{known[near[0]]}'?" if near else f"installed: {', '.join(installed)}"
            told.append(f"{DISABLE_VARIABLE}: no plugin is called '{name}'; {hint}")
    return told


def load_entry_point(entry: EntryPoint) -> LoadedPlugin | BrokenPlugin:
    """Import one plugin and collect its components; any fault makes it a `BrokenPlugin`."""
    try:
        # What a plugin prints must not stand in the output of a command.
        with contextlib.redirect_stdout(sys.stderr):
            module = entry.load()
        distribution, version = _source(entry)
        components = tuple(components_of(module, entry.name, distribution, version))
    except PluginFault as fault:
        return _broken(entry, str(fault))
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the plugin's code may raise anything; it must not stop ebmkit
        return _broken(entry, told(error))
    return LoadedPlugin(entry.name, module, components, distribution, version)


def components_of(module: Any, plugin: str, distribution: str, version: str) -> Iterable[Registered]:
    """The components that a plugin module's hooks return, each one checked; raises `PluginFault`."""
    if not isinstance(module, ModuleType):
        raise PluginFault(f"its entry point must name a module, not {type(module).__name__}")
    api = getattr(module, "PLUGIN_API", None)
    if type(api) is not int or api != PLUGIN_API:
        # A module that is not installed, or damaged, has no distribution to name.
        raise PluginFault(_other_api(api, plugin if distribution in ("unknown", "not installed") else distribution))
    manager = new_manager()
    implemented = _implemented(manager, module)
    if not implemented:
        raise PluginFault("it implements no hook of ebmkit at the top level of its module")
    found: list[Registered] = []
    for kind, hook in hookspecs.HOOK_OF_KIND.items():
        # pluggy leaves out None, so that nothing would be told of a forgotten `return`.
        results = getattr(manager.hook, hook)() or [None] * (hook in implemented)
        for classes in results:
            if not isinstance(classes, list | tuple):
                raise PluginFault(f"{hook} must return a list of classes, not {type(classes).__name__}")
            for component in classes:
                _check_class(component, kind, hook)
                found.append(Registered(kind, component.name, component, plugin, distribution, version))
    return found


def _other_api(api: object, distribution: str) -> str:
    """What is wrong with a plugin for other interfaces, and the way out."""
    has = f"this ebmkit has PLUGIN_API = {PLUGIN_API}"
    if api is None:
        return f"it states no PLUGIN_API; {has}: its module must state the one that it was written for"
    stated = f"it was written for PLUGIN_API {api!r}; {has}"
    if type(api) is not int:
        return f"{stated}, a whole number: its module must state one, too"
    if api > PLUGIN_API:
        return f"{stated}: upgrade ebmkit, or install an older version of {distribution}"
    return f"{stated}: upgrade {distribution}, or ask its author for a version for this ebmkit"


def _check_class(component: Any, kind: str, hook: str) -> None:
    interface = INTERFACES[kind]
    if not (inspect.isclass(component) and issubclass(component, interface)):
        raise PluginFault(f"{hook} returned {component!r}, which is no subclass of ebmkit.{interface.__name__}")
    where = f"{component.__module__}.{component.__qualname__}"
    if inspect.isabstract(component):
        missing = ", ".join(sorted(getattr(component, "__abstractmethods__", ())))
        raise PluginFault(f"{where} does not implement {missing}")
    name = getattr(component, "name", None)
    if not isinstance(name, str) or not _NAME.match(name):
        raise PluginFault(f"{where} needs a name of lower-case letters, digits and underscores, not {name!r}")
    options = getattr(component, "Options", None)
    if not (inspect.isclass(options) and issubclass(options, BaseOptions)):
        raise PluginFault(f"{where}.Options must be a subclass of ebmkit.BaseOptions")
    if kind == "regularizer" and not {"prepare", "penalty"} & _own_members(component, interface):
        raise PluginFault(f"{where} has neither prepare nor penalty, and would regularize nothing; mind the spelling")
    if kind == "tracker" and not _implemented(new_manager(), component, where, f"{where}."):
        raise PluginFault(f"{where} implements no lifecycle hook of ebmkit")


def _own_members(component: type, interface: type) -> set[str]:
    """What a class and its bases below the interface define themselves."""
    own = component.__mro__[: component.__mro__.index(interface)]
    return {name for base in own for name in vars(base)}


def _implemented(manager: pluggy.PluginManager, plugin: Any, label: str = "it", its: str = "its ") -> set[str]:
    """The names of the hooks that a module or a tracker class implements; raises `PluginFault`."""
    try:
        manager.register(plugin)
    except pluggy.PluginValidationError as error:
        raise PluginFault(_wrong_parameters(manager, plugin, its)) from error
    callers = manager.get_hookcallers(plugin) or ()
    unknown = [caller.name for caller in callers if not caller.has_spec()]
    if unknown:
        near = get_close_matches(unknown[0], hookspecs.HOOKS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise PluginFault(f"{label} implements a hook that ebmkit does not have, '{unknown[0]}'{hint}")
    implemented = {caller.name for caller in callers}
    functions = [name for name, _ in inspect.getmembers(plugin, inspect.isfunction)]
    unmarked = [name for name in functions if name in set(hookspecs.HOOKS) - implemented]
    if unmarked:
        raise PluginFault(f"{its}{unmarked[0]} is not marked with @ebmkit.hookimpl")
    return implemented


def _wrong_parameters(manager: pluggy.PluginManager, plugin: Any, its: str) -> str:
    """Which hook of `plugin` wants parameters that ebmkit does not give."""
    for name in hookspecs.HOOKS:
        given = set(inspect.signature(getattr(hookspecs, name)).parameters)
        function = getattr(plugin, name, None)
        if function is None or manager.parse_hookimpl_opts(plugin, name) is None:
            continue
        wrong = sorted(set(inspect.signature(function).parameters) - given - {"self"})
        if wrong:
            gives = ", ".join(sorted(given)) or "nothing"
            return f"{its}{name} takes {', '.join(wrong)}, which the hook does not give; it gives {gives}"
    return f"{its}hooks do not fit those of ebmkit"


def lifecycle_hooks(watcher: object) -> tuple[str, ...]:
    """The lifecycle hooks that a plugin's module, or a tracker, implements, in the order of a run."""
    manager = new_manager()
    manager.register(watcher)
    return tuple(hook for hook in hookspecs.LIFECYCLE_HOOKS if getattr(manager.hook, hook).get_hookimpls())


def canonical(name: str) -> str:
    """Names of plugins, distributions and modules that differ in case, `-`, `_` and `.` only are the same."""
    return re.sub(r"[-_.]+", "-", name).lower()


def told(error: BaseException) -> str:
    """An error's type and text on one line, however long a story it tells."""
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))


def _source(entry: EntryPoint) -> tuple[str, str]:
    distribution = entry.dist
    if distribution is None:
        return "unknown", "unknown"
    # Damaged metadata has neither, whatever its type says.
    return distribution.name or "unknown", distribution.version or "unknown"


def _broken(entry: EntryPoint, reason: str) -> BrokenPlugin:
    return BrokenPlugin(entry.name, *_source(entry), reason, entry.value)
