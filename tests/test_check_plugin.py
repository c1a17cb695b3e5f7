"""`ebmkit check-plugin`: what it finds, by which names, and with which exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

import ebmkit
import ebmkit.errors
from run_helpers import Result, environment, run_cli, run_process
from test_plugins import install

PLUGIN = '''
from pydantic import Field
from ebmkit import BaseOptions, Regularizer, Term, hookimpl
PLUGIN_API = 1

class R1(Regularizer):
    """R1, the gradient penalty at real images."""
    name = "my_r1"
    needs_double_backward = True

    class Options(BaseOptions):
        """Options."""
        weight: float = Field(default=10.0, ge=0, description="Weight.")

    def penalty(self, pairs, generator):
        import torch
        x = pairs.x_pos.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(pairs.energy(x, pairs.t).sum(), x, create_graph=True)
        value = self.options.weight / 2 * gradient.square().sum((1, 2, 3)).mean()
        return Term(value, {"penalty": value.detach()})

@hookimpl
def ebmkit_regularizers():
    return [R1]
'''
HOOKS = """
from ebmkit import hookimpl
PLUGIN_API = 1

@hookimpl
def ebmkit_step_end(run, step, metrics):
    with open(run.folder / "lines.txt", "a") as file:
        file.write(f"{metrics['energy_data']}\\n")
"""


def check(folder: Path, *words: str) -> Result:
    """`ebmkit check-plugin` in a process that finds what is installed in `folder`."""
    return run_process("check-plugin", *words, cwd=folder, env=environment(PYTHONPATH=str(folder)))


@pytest.fixture
def loose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module that is not installed, for this process; gives its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str) -> str:
        name = f"loose_{uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


def test_a_good_plugin_passes_under_each_of_its_names(tmp_path: Path) -> None:
    install(tmp_path, "My.Plugin", "my_module", PLUGIN, plugin="mine")
    for name in ("my-plugin", "mine", "my_module"):
        done = check(tmp_path, name, "--json")
        assert done.code == 0, done.out + done.err
        report = json.loads(done.out)
        assert report["broken"] == []
        outcomes = {finding["rule"]: finding["outcome"] for finding in report["findings"]}
        assert len(outcomes) >= 18
        assert set(outcomes.values()) == {"passed"}


def test_a_broken_rule_is_told_with_what_to_mend(tmp_path: Path) -> None:
    source = PLUGIN.replace("create_graph=True", "create_graph=False").replace('"penalty": value.detach()', "")
    install(tmp_path, "my-plugin", "my_module", source)
    done = check(tmp_path, "my-plugin")
    assert done.code == 1
    assert "my_module (my-plugin 1.2)" in done.out
    assert "regularizer my_r1: the penalty is a term: BROKEN" in done.out
    assert "has no graph to the parameters: it would train nothing; do not detach it" in done.out
    assert "broken rules of" in done.out
    assert "\x1b" not in done.out
    assert done.err == ""
    assert "has a docstring" not in done.out, "kept rules are shown with --rules only"


def test_an_error_in_the_plugin_s_own_code_names_the_line(tmp_path: Path) -> None:
    install(tmp_path, "my-plugin", "my_module", PLUGIN.replace(".sum((1, 2, 3))", ".sum((1, 2, 3, 4))"))
    done = check(tmp_path, "my-plugin", "--rules")
    assert done.code == 1
    assert "raised IndexError: Dimension out of range" in done.out
    assert re.search(r"\(my_module.py, line \d+: value = self.options.weight", done.out)
    assert "has a docstring: kept" in done.out
    assert "Traceback" not in done.out + done.err


def test_one_fault_in_many_rules_is_told_once(loose: Callable[[str], str]) -> None:
    name = loose(PLUGIN.replace(".sum((1, 2, 3))", ".sum((1, 2, 3, 4))"))
    done = run_cli("check-plugin", name)
    assert done.out.count("raised IndexError") == 1
    count = re.search(r"regularizer my_r1: (\d+) rules: BROKEN", done.out)
    assert count is not None
    listed = re.search(r"rules: (randomness comes from the generator; .*the penalty is a term.*)", done.out)
    assert listed is not None
    assert len(listed[1].split("; ")) == int(count[1]) >= 4
    assert f"{count[1]} broken rules of" in done.out
    # Tools get each rule by itself.
    findings = json.loads(run_cli("check-plugin", name, "--json").out)["findings"]
    assert sum("raised IndexError" in finding["message"] for finding in findings) == int(count[1])


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("torch.nn.functional.interpolate(x, size=())", "my_module.py"),
        ("__import__('pydantic').TypeAdapter(int).validate_python('x')", "my_module.py"),
        ("deep(x)", "deep.py"),
    ],
)
def test_the_place_of_an_error_is_in_the_plugin(
    line: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the last line of torch's or pydantic's, which nobody can mend."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"placed_{abs(hash(line))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "deep.py").write_text("def deep(x):\n    return x.view(7, 7, 7)\n")
    late = f"        from {name}.deep import deep\n        {line}\n        value ="
    (tmp_path / name / "my_module.py").write_text(PLUGIN.replace("        value =", late))
    (tmp_path / name / "__init__.py").write_text(f"from {name}.my_module import *\nPLUGIN_API = 1\n")
    done = run_cli("check-plugin", name)
    assert done.code == 1
    assert re.search(rf"raised \w+: .*\({shown}, line \d+: .*\)", done.out), done.out


def test_global_randomness_is_told_before_what_follows_from_it(loose: Callable[[str], str]) -> None:
    source = PLUGIN.replace("gradient.square()", "(torch.rand_like(gradient) * gradient.square())")
    broken = re.findall(r"my_r1: (.*): BROKEN", run_cli("check-plugin", loose(source)).out)
    assert broken[0] == "randomness comes from the generator"


def test_a_module_that_is_not_installed_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "loose.py").write_text(PLUGIN)
    done = check(tmp_path, "loose")
    assert done.code == 0, done.out + done.err
    assert "loose (not installed)" in done.out
    (tmp_path / "loose.py").write_text(PLUGIN.replace("PLUGIN_API = 1", "PLUGIN_API = 7"))
    done = check(tmp_path, "loose")
    assert done.code == 1
    assert "loose (not installed) does not load: it was written for PLUGIN_API 7" in done.out


def test_a_plugin_that_does_not_load_fails_with_the_reason(tmp_path: Path) -> None:
    install(tmp_path, "my-plugin", "my_module", "raise ValueError('no luck')")
    done = check(tmp_path, "my-plugin")
    assert done.code == 1
    assert "my_module (my-plugin 1.2) does not load: ValueError: no luck" in done.out


def test_lifecycle_hooks_of_a_module_are_checked_too(tmp_path: Path) -> None:
    install(tmp_path, "my-hooks", "my_hooks", HOOKS)
    done = check(tmp_path, "my-hooks")
    assert done.code == 1
    assert "hooks of my_hooks: 5 rules: BROKEN" in done.out
    assert "; lives through a run; goes on after a kill; " in done.out
    assert "ebmkit_step_end raises KeyError: 'energy_data'" in done.out
    install(tmp_path, "good-hooks", "good_hooks", HOOKS.replace("energy_data", "loss"))
    assert check(tmp_path, "good-hooks").code == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ebmkit-wgann", "no distribution, plugin or module is called 'ebmkit-wgann'"),
        ("langevinn", "did you mean 'langevin'?"),
        ("pluggy", "distribution 'pluggy' is installed, but has no plugin"),
        ("../evil", "is no name of a distribution, plugin or module"),
        ("os;import evil", "is no name of a distribution, plugin or module"),
    ],
)
def test_what_is_no_plugin_is_bad_input(name: str, words: str) -> None:
    done = run_cli("check-plugin", name)
    assert done.code == 2
    assert words in done.err
    assert done.out == ""


def test_image_size_is_where_it_is_tested() -> None:
    done = run_cli("check-plugin", "unet", "--image-size", "12", "--json")
    assert done.code == 1
    told = {finding["message"] for finding in json.loads(done.out)["findings"] if finding["outcome"] == "failed"}
    assert all("is not divisible by 8" in message for message in told)


TWO = PLUGIN.replace("return [R1]", "return [R1, R2]").replace(
    "@hookimpl",
    """class R2(R1):
    "R1 that has an option more."
    name = "my_r2"

    class Options(R1.Options):
        "Options."
        factor: int = Field(default=1, ge=0, description="Factor.")

    def penalty(self, pairs, generator):
        if self.options.factor == 7 and self.context.time_steps == 3:
            raise ArithmeticError(f"{self.options.weight} at seven")
        return super().penalty(pairs, generator)

@hookimpl""",
)


def test_options_and_time_steps_are_those_that_are_given(loose: Callable[[str], str]) -> None:
    name = loose(TWO)
    words = ("--set", "factor=7", "--set", "regularizer.my_r2.weight=0.5")
    assert run_cli("check-plugin", name, *words).code == 0
    done = run_cli("check-plugin", name, *words, "--time-steps", "3")
    assert done.code == 1
    assert "raised ArithmeticError: 0.5 at seven" in done.out
    assert "my_r1:" not in done.out


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("weight=1.0", "2 components have this option; write regularizer.my_r1.weight or regularizer.my_r2.weight"),
        ("wieght=1.0", "there is no option 'wieght'; did you mean 'weight'?"),
        ("regularizer.my_r1.factor=1", "there is no option 'factor'; options: weight"),
        ("regularizer.my_r3.weight=1.0", "no component regularizer.my_r3; did you mean 'regularizer.my_r"),
        ("sampler.weight=1.0", "write OPTION=VALUE, or KIND.NAME.OPTION=VALUE"),
        ("factor", "write key=value"),
        ("factor=-1", "regularizer.my_r2.factor  must be at least 0"),
        ("factor=1.5", "regularizer.my_r2.factor  must be"),
    ],
)
def test_an_option_that_cannot_be_set_is_bad_input(word: str, told: str, loose: Callable[[str], str]) -> None:
    done = run_cli("check-plugin", loose(TWO), "--set", word)
    assert done.code == 2, done.out
    assert told in done.err
    assert done.out == ""


def test_options_of_the_python_interface() -> None:
    assert {finding.outcome for finding in ebmkit.check_plugin("energy-l2", options={"weight": 0.5})} <= {
        "passed",
        "skipped",
    }
    rules = {finding.rule: finding for finding in ebmkit.check_plugin("energy-l2", options={"weight": 0.0})}
    assert rules["does something"].outcome == "failed"
    with pytest.raises(ebmkit.errors.BadInput, match="must be at least 0"):
        ebmkit.check_plugin("energy-l2", options={"weight": -1.0})
    told = {finding.outcome for finding in ebmkit.check_plugin("energy-l2", time_steps=1, image_shape=(1, 8, 8))}
    assert told <= {"passed", "skipped"}
