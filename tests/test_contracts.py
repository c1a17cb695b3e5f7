"""The contracts find real faults, say what to mend, and are kept by every first-party component."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from docs_pages import module_of
from ebmkit import KINDS, RunInfo
from ebmkit.plugins import LoadedPlugin, Registered
from ebmkit.process_settings import ProcessSettings
from ebmkit.registry import Registry, default_registry
from ebmkit.testing import CONTRACTS, Contract, HooksContract, rules
from ebmkit.testing.checking import Finding, check_component, run_contract
from faulty_components import (
    FAULTS,
    GOOD,
    AnswersInFloat32,
    EmbedsTimeInFloat32,
    LeavesAutocastOn,
    SetsTheDefaultType,
    Unregistered,
)

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = "importing it imports no torch"
"""These components stand beside each other in a test's module, which imports torch; real ones are tested elsewhere."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def findings(component: type[Any], registered: bool = True) -> list[Finding]:
    """Every rule for this class, as `check-plugin` looks at it."""
    item = Registered(component.kind, component.name, component, "faulty", "faulty", "1.0")
    own = [LoadedPlugin("faulty", sys.modules[component.__module__], (item,))] if registered else []
    first_party = [plugin for plugin in default_registry().loaded if plugin.plugin == "schedules"]
    return [finding for finding in check_component(item, Registry([*first_party, *own])) if finding.rule != IMPORTS]


@pytest.mark.parametrize("component", GOOD, ids=lambda component: component.kind)
def test_a_good_component_breaks_no_rule(component: type[Any]) -> None:
    assert [finding for finding in findings(component) if finding.outcome == "failed"] == []


def test_there_is_a_good_component_of_every_kind() -> None:
    assert [component.kind for component in GOOD] == list(KINDS)
    assert {fault.component.kind for fault in FAULTS} == set(KINDS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.component.kind}-{fault.component.__name__}")
def test_a_fault_is_found_and_the_message_says_what_to_mend(fault: Any) -> None:
    component, rule, message = fault
    found = {finding.rule: finding for finding in findings(component, component is not Unregistered)}
    assert rule in found, sorted(found)
    assert found[rule].outcome == "failed", found[rule]
    assert message in found[rule].message
    # What to mend is a sentence, not a number or a bare exception.
    assert len(found[rule].message.split()) > 6
    assert not found[rule].message.startswith("raised")


def test_most_faults_break_few_rules() -> None:
    """One fault is told once or twice, not by every rule: a person looks at the right place first."""
    broken = [
        sum(finding.outcome == "failed" for finding in findings(component, component is not Unregistered))
        for component, *_ in FAULTS
    ]
    assert sum(count <= 3 for count in broken) >= 0.8 * len(broken), broken


@pytest.mark.parametrize("component", [EmbedsTimeInFloat32, AnswersInFloat32, LeavesAutocastOn, SetsTheDefaultType])
def test_one_fault_is_told_by_one_rule(component: type[Any]) -> None:
    """Neither the type of the weights nor a setting that is left changed shows again where it only has consequences."""
    before = ProcessSettings.capture()
    broken = {finding.message for finding in findings(component) if finding.outcome == "failed"}
    assert len(broken) == 1
    assert before.changed() == []


LOOSE = '''
from ebmkit import Schedule, hookimpl
PLUGIN_API = 1

class Loose(Schedule):
    """A constant."""
    name = "loose"
    def __call__(self, progress):
        return 1

@hookimpl
def ebmkit_schedules():
    IMPORT
    return [Loose]
'''


@pytest.mark.parametrize("imported", ["pass", "import torch", "from ebmkit import EnergyModel", "import json"])
def test_a_plugin_that_imports_torch_is_told_so(imported: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the process of the rule finds it.
    monkeypatch.syspath_prepend(tmp_path)
    for name, source in (("late", LOOSE.replace("IMPORT", imported)), ("early", f"{imported}\n{LOOSE}")):
        module = module_of(f"loose_{name}_{abs(hash(imported))}", source.replace("IMPORT", "pass"), tmp_path)
        item = Registered("schedule", "loose", module.Loose, "loose", "loose", "1.0")
        registry = Registry([LoadedPlugin("loose", module, (item,))])
        found = {finding.rule: finding for finding in check_component(item, registry)}
        imports = "torch" in imported or "EnergyModel" in imported
        assert found[IMPORTS].outcome == ("failed" if imports else "passed")
        assert not imports or "import torch within methods" in found[IMPORTS].message


KEEPS_STATE = """
from ebmkit import hookimpl
PLUGIN_API = 1
file = None

@hookimpl
def ebmkit_train_begin(run):
    global file
    file = run.folder / "heard.txt"

@hookimpl
def ebmkit_evaluation(run, step):
    with FILE.open("a") as heard:
        heard.write(f"{step}\\n")
"""


@pytest.mark.parametrize(("path", "right"), [("file", False), ("(run.folder / 'heard.txt')", True)])
@pytest.mark.parametrize("package", [False, True])
def test_hooks_of_a_module_have_nothing_left_of_an_earlier_process(
    path: str, right: bool, package: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name, source = f"keeps_state_{right}_{package}", KEEPS_STATE.replace("FILE", path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(f"from {name}.hooks import *\nPLUGIN_API = 1" if package else source)
    (tmp_path / name / "hooks.py").write_text(source)
    module = importlib.import_module(name)
    before = set(sys.modules)
    # A used module, as any is by the time that its later rules are looked at.
    module.ebmkit_train_begin(RunInfo(tmp_path, {}))
    found = {
        finding.rule: finding
        for finding in run_contract(type("Hooks", (HooksContract,), {"plugin": module}), "hooks")
        if finding.outcome == "failed"
    }
    assert set(found) == (set() if right else {"hears of evaluations"})
    assert right or "'NoneType' object has no attribute 'open'" in found["hears of evaluations"].message
    assert sys.modules[name] is module
    assert {added for added in set(sys.modules) - before if added.startswith(name)} == set()


def test_contracts_and_rules() -> None:
    assert list(CONTRACTS) == list(KINDS)
    for contract in CONTRACTS.values():
        found = rules(contract)
        assert len(found) >= 11
        assert all(sentence.endswith(".") for sentence in found.values()), "the documentation shows these sentences"


def modules() -> Iterator[ModuleType]:
    """The test modules of all first-party plugins."""
    for path in sorted((ROOT / "plugins").glob("*/tests/test_*.py")):
        spec = importlib.util.spec_from_file_location(f"contracts_of_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module


def test_every_first_party_component_has_a_contract_test() -> None:
    tested = set()
    for module in modules():
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Contract) and value.__module__ == module.__name__:
                assert name.startswith("Test"), f"pytest would not run {name}"
                assert issubclass(value, CONTRACTS[value.component.kind]), name
                tested.add((value.component.kind, value.component.name))
    registered = {(item.kind, item.name) for item in default_registry() if item.distribution == "ebmkit"}
    assert registered
    assert registered - tested == set(), "write a subclass of their contract in their plugin's tests"
