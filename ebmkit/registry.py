"""(kind, name) -> component class, and helpful errors where there is none."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from ebmkit.errors import PluginMissing
from ebmkit.interfaces import KINDS
from ebmkit.plugins import DISABLE_VARIABLE, BrokenPlugin, LoadedPlugin, Registered, disabled_in_vain, discover
from ebmkit.printable import one_line

PLACES = {
    "energy": "under [energy]",
    "sampler": "under [sampler]",
    "buffer": "under [buffer]",
    "regularizer": "under [[regularizers]]",
    "schedule": "as the value of an option, { use = ... }",
    "objective": "under [objective]",
    "tracker": "under [[trackers]]",
    "feature_extractor": "by `ebmkit evaluate --extractor`",
}
"""Where the components of a kind are named: in a recipe, but for feature extractors."""

_log = logging.getLogger("ebmkit")


def suggest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `names`, or an empty string."""
    near = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


class Registry:
    """The components of a set of plugins; read-only once built."""

    def __init__(self, plugins: Iterable[LoadedPlugin | BrokenPlugin]) -> None:
        self.loaded: list[LoadedPlugin] = []
        """The plugins that can be used."""
        self.broken: list[BrokenPlugin] = []
        """Those that cannot, each with the reason."""
        self._found: dict[tuple[str, str], list[Registered]] = {}
        for plugin in plugins:
            if isinstance(plugin, BrokenPlugin):
                self.broken.append(plugin)
                continue
            # By module: two distributions may well have chosen the same plugin name.
            if all(plugin.module is not other.module for other in self.loaded):
                self.loaded.append(plugin)
            for item in plugin.components:
                found = self._found.setdefault((item.kind, item.name), [])
                if all(item.component is not other.component for other in found):
                    found.append(item)

    def __iter__(self) -> Iterator[Registered]:
        """Every component, by kind (in the order of `KINDS`) and name."""
        order = sorted(self._found, key=lambda key: (KINDS.index(key[0]), key[1]))
        return (item for key in order for item in self._found[key])

    @property
    def ambiguous(self) -> list[str]:
        """For each name that more than one plugin provides, who does, and the way out."""
        return [_ambiguity(*key, found) for key, found in sorted(self._found.items()) if len(found) > 1]

    def is_ambiguous(self, kind: str, name: str) -> bool:
        """Whether more than one plugin provides this kind and name."""
        return len(self._found.get((kind, name), [])) > 1

    def names(self, kind: str) -> list[str]:
        """The names of a kind's components, sorted."""
        return sorted(name for k, name in self._found if k == kind)

    def find(self, kind: str, name: str) -> Registered:
        """The component of this kind and name; raises `PluginMissing` with the nearest name or the broken plugins."""
        found = self._found.get((kind, name), [])
        if len(found) == 1:
            return found[0]
        if found:
            raise PluginMissing(_ambiguity(kind, name, found))
        hint = self._of_other_kind(name) or suggest(name, self.names(kind))
        if not hint:
            names = ", ".join(self.names(kind)) or "none"
            hint = f"; installed: {names}"
        message = f"unknown {kind} '{one_line(name)}'{hint}"
        if self.broken:
            message = "\n  ".join([f"{message}\nplugins that did not load:", *(plugin.told for plugin in self.broken)])
        raise PluginMissing(message)

    def _of_other_kind(self, name: str) -> str:
        """`; 'csv' is a tracker: use it under [[trackers]]` if there is such a component, or an empty string."""
        others = [kind for kind in KINDS if (kind, name) in self._found]
        told = [f"'{name}' is {article(kind)} {kind}: use it {PLACES[kind]}" for kind in others]
        return "".join(f"; {one}" for one in told)

    def component(self, kind: str, name: str) -> Any:
        """The class of this kind and name; raises as `find` does."""
        return self.find(kind, name).component


def article(kind: str) -> str:
    """`a` or `an`."""
    return "an" if kind[0] in "aeo" else "a"


def _ambiguity(kind: str, name: str, found: Iterable[Registered]) -> str:
    sources = " and ".join(f"{i.source} (plugin '{i.plugin}')" for i in found)
    return (
        f"{kind} '{name}' is ambiguous: {sources} provide it; uninstall one, or disable its plugin with "
        f"{DISABLE_VARIABLE}=PLUGIN"
    )


@cache
def default_registry() -> Registry:
    """The registry of all installed plugins, built once in a process."""
    for warning in disabled_in_vain():
        _log.warning("warning: %s", warning)
    return Registry(discover())
