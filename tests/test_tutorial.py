"""The tutorial and the packages of docs/examples are one: what a reader makes is what CI installs beside the wheel."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ebmkit.scaffold import new_plugin

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def tutorial() -> ModuleType:
    """The module that turns the page into a script."""
    spec = importlib.util.spec_from_file_location("tutorial", ROOT / ".ci" / "tutorial.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree(folder: Path) -> dict[str, str]:
    """Every file of a project that is no trace of tools."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"__pycache__", ".pytest_cache", ".ruff_cache"} & {*path.parts}
    }


def test_the_examples_are_what_the_tutorial_makes(tutorial: ModuleType, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        for line in tutorial.script().splitlines():
            if line.startswith("ebmkit new-plugin "):
                new_plugin(*line.split()[2:])
        for file, text in tutorial.files().items():
            Path(file).write_text(text, encoding="utf-8")
    made, kept = tree(tmp_path), tree(EXAMPLES)
    assert made.keys() == kept.keys()
    for name in made:
        assert made[name] == kept[name], f"docs/examples/{name} is not what the tutorial makes"


def test_every_command_and_file_of_the_page_is_in_the_script(tutorial: ModuleType) -> None:
    page, script = tutorial.PAGE.read_text(encoding="utf-8"), tutorial.script()
    assert page.count("```bash\n") >= 12
    assert page.count(' title="') == len(tutorial.files()) == 5
    commands = [text for language, _, text in tutorial.blocks() if language == "bash"]
    assert len(commands) == page.count("```bash\n")
    assert all(text in script for text in (*commands, *tutorial.files().values()))
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize("package", ["ebmkit-r1", "ebmkit-underdamped"])
def test_the_examples_keep_to_their_own_lint(package: str) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed; pip install -e '.[dev]'")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", EXAMPLES / package],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
