"""Running contracts without pytest: what `ebmkit check-plugin` does."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from unittest import SkipTest

from ebmkit.plugins import LoadedPlugin, Registered, discover, lifecycle_hooks, told
from ebmkit.process_settings import kept
from ebmkit.registry import Registry
from ebmkit.testing import CONTRACTS, HooksContract, rules
from ebmkit.testing.contract import ContractBroken
from ebmkit.testing.settings import options_of

Outcome = Literal["passed", "failed", "skipped"]
OWN = Path(__file__).parent


@dataclass(frozen=True)
class Finding:
    """What one rule says of one component: `message` is what to mend, or why the rule does not apply."""

    subject: str
    rule: str
    outcome: Outcome
    message: str = ""


def check_plugins(
    plugins: Iterable[LoadedPlugin],
    image_shape: tuple[int, int, int] | None = None,
    time_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Every rule for every component of some plugins, and for the lifecycle hooks of their modules, one by one.

    `options` are those of `--set`, by `OPTION` or `KIND.NAME.OPTION`. Raises `BadInput` for those that cannot be used,
    before any rule is looked at.
    """
    plugins, installed = list(plugins), list(discover())
    registry = Registry([*installed, *(plugin for plugin in plugins if plugin not in installed)])
    chosen = options_of([item for plugin in plugins for item in plugin.components], options or {}, registry)
    return _check_plugins(plugins, registry, {"image_shape": image_shape, "time_steps": time_steps}, chosen)


def _check_plugins(
    plugins: Iterable[LoadedPlugin],
    registry: Registry,
    place: Mapping[str, Any],
    chosen: Mapping[type, Mapping[str, Any]],
) -> Iterator[Finding]:
    for plugin in plugins:
        for item in plugin.components:
            yield from check_component(item, registry, options=chosen.get(item.component, {}), **place)
        if lifecycle_hooks(plugin.module):
            members = {"plugin": plugin.module, "image_shape": place["image_shape"]}
            contract = type("Hooks", (HooksContract,), members)
            yield from run_contract(contract, f"hooks of {plugin.module.__name__}")


def check_component(
    item: Registered,
    registry: Registry | None = None,
    image_shape: tuple[int, int, int] | None = None,
    time_steps: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Every rule of the component's kind."""
    members: dict[str, Any] = {
        "component": item.component,
        "registry": registry,
        "image_shape": image_shape,
        "time_steps": time_steps,
        "options": options or {},
    }
    contract = type("Contract", (CONTRACTS[item.kind],), members)
    yield from run_contract(contract, f"{item.kind} {item.name}")


def run_contract(contract: type[Any], subject: str) -> Iterator[Finding]:
    """Run the tests of a contract that names its component."""
    for name in rules(contract):
        rule = name.removeprefix("test_").replace("_", " ")
        try:
            # What one rule finds changed must not be found again by all that follow.
            with kept():
                getattr(contract(), name)()
        except SkipTest as reason:
            yield Finding(subject, rule, "skipped", str(reason))
        except ContractBroken as broken:
            yield Finding(subject, rule, "failed", str(broken))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin's code may raise anything
            yield Finding(subject, rule, "failed", f"raised {told(error)}{_place(error, _sources(contract))}")
        else:
            yield Finding(subject, rule, "passed")


def _sources(contract: type[Any]) -> list[Path]:
    """The files and folders with the code of a contract's plugin: whole packages, wherever they are installed."""
    component, plugin = getattr(contract, "component", None), getattr(contract, "plugin", None)
    names = {getattr(component, "__module__", ""), plugin.__name__ if isinstance(plugin, ModuleType) else ""}
    found: list[Path] = []
    for module in (sys.modules.get(name.partition(".")[0]) for name in names - {""}):
        if module is not None:
            files = [module.__file__] if getattr(module, "__file__", None) else []
            found += [Path(place).resolve() for place in getattr(module, "__path__", files) if place]
    return found


def _place(error: BaseException, sources: list[Path]) -> str:
    """The last line of the plugin's own code that an error went through, or of whoever raised it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if OWN not in Path(f.filename).parents]
    own = [f for f in frames if {path := Path(f.filename).resolve(), *path.parents} & set(sources)]
    if not (own or frames):
        return ""
    last = (own or frames)[-1]
    return f" ({Path(last.filename).name}, line {last.lineno}: {last.line})"
