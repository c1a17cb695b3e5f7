"""Which plugins a name means: a distribution, a plugin, or a module, installed or not."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys

from ebmkit.errors import BadInput
from ebmkit.plugins import (
    ENTRY_POINT_GROUP,
    BrokenPlugin,
    LoadedPlugin,
    PluginFault,
    canonical,
    components_of,
    discover,
    told,
)
from ebmkit.registry import suggest

NOT_INSTALLED = "not installed"


def find_plugins(name: str) -> list[LoadedPlugin | BrokenPlugin]:
    """The plugins of a distribution, or the one of this plugin or module name; raises `BadInput` if there is none."""
    found = list(discover())
    wanted = canonical(name)
    of_distribution = [plugin for plugin in found if canonical(plugin.distribution) == wanted]
    named = [plugin for plugin in found if wanted in (canonical(plugin.plugin), canonical(_module(plugin)))]
    if of_distribution or named:
        return of_distribution or named
    if _is_distribution(name):
        raise BadInput(
            f"distribution '{name}' is installed, but has no plugin: name its module under "
            f"[project.entry-points.{ENTRY_POINT_GROUP}] in pyproject.toml, and install it again"
        )
    return [_from_module(name, [plugin.distribution for plugin in found] + [plugin.plugin for plugin in found])]


def _from_module(name: str, known: list[str]) -> LoadedPlugin | BrokenPlugin:
    """A module that no distribution names as a plugin, for authors who have not installed theirs yet."""
    module_name = name.replace("-", "_")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", module_name):
        raise BadInput(f"'{name}' is no name of a distribution, plugin or module; see `ebmkit list-plugins`")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importable = importlib.util.find_spec(module_name) is not None
    except (ImportError, ValueError):
        importable = False
    if not importable:
        hint = suggest(name, known) or "; `ebmkit list-plugins` shows what is installed"
        raise BadInput(f"no distribution, plugin or module is called '{name}'{hint}")
    try:
        module = importlib.import_module(module_name)
        components = tuple(components_of(module, module_name, NOT_INSTALLED, ""))
    except PluginFault as fault:
        return BrokenPlugin(module_name, NOT_INSTALLED, "", str(fault))
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the plugin's code may raise anything
        return BrokenPlugin(module_name, NOT_INSTALLED, "", told(error))
    return LoadedPlugin(module_name, module, components, NOT_INSTALLED, "")


def _module(plugin: LoadedPlugin | BrokenPlugin) -> str:
    return plugin.module.__name__ if isinstance(plugin, LoadedPlugin) else plugin.module


def _is_distribution(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return True
