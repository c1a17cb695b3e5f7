"""Running contracts without pytest: what `ebmkit check-plugin` does."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import SkipTest

from ebmkit.plugins import LoadedPlugin, Registered, discover, lifecycle_hooks, told
from ebmkit.process_settings import kept
from ebmkit.registry import Registry
from ebmkit.testing import CONTRACTS, HooksContract, rules
from ebmkit.testing.contract import ContractBroken

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
    plugins: Iterable[LoadedPlugin], image_shape: tuple[int, int, int] | None = None
) -> Iterator[Finding]:
    """Every rule for every component of some plugins, and for the lifecycle hooks of their modules, one by one."""
    plugins, installed = list(plugins), list(discover())
    registry = Registry([*installed, *(plugin for plugin in plugins if plugin not in installed)])
    for plugin in plugins:
        yield from _check_plugin(plugin, registry, image_shape)


def _check_plugin(
    plugin: LoadedPlugin, registry: Registry, image_shape: tuple[int, int, int] | None
) -> Iterator[Finding]:
    for item in plugin.components:
        yield from check_component(item, registry, image_shape)
    if lifecycle_hooks(plugin.module):
        contract = type("Hooks", (HooksContract,), {"plugin": plugin.module, "image_shape": image_shape})
        yield from run_contract(contract, f"hooks of {plugin.module.__name__}")


def check_component(
    item: Registered, registry: Registry | None = None, image_shape: tuple[int, int, int] | None = None
) -> Iterator[Finding]:
    """Every rule of the component's kind."""
    members: dict[str, Any] = {"component": item.component, "registry": registry, "image_shape": image_shape}
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
            yield Finding(subject, rule, "failed", f"raised {told(error)}{_place(error)}")
        else:
            yield Finding(subject, rule, "passed")


def _place(error: BaseException) -> str:
    """Where in the plugin's own code an error came from, if it did."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if OWN not in Path(f.filename).parents]
    own = [f for f in frames if "site-packages/torch/" not in f.filename]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line})" if own else ""
