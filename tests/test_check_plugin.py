"""`ebmkit check-plugin`: what it finds, by which names, and with which exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

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
    assert "hooks of my_hooks: lives through a run: BROKEN" in done.out
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
