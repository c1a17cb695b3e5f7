"""`ebmkit new-plugin`: every kind's project is complete, works as it is, and nothing is ever written over."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ebmkit
from ebmkit import KINDS, PLUGIN_API
from ebmkit.errors import BadInput
from ebmkit.plugins import ENTRY_POINT_GROUP
from ebmkit.scaffold import names_of, new_plugin, writing
from ebmkit.scaffold.names import LONGEST
from run_helpers import contents, environment, run_cli, run_process, tiny_table, write_recipe, write_shards

PACKAGE_FILES = {"pyproject.toml", "README.md", ".gitignore", ".github/workflows/ci.yml"}


def distribution(kind: str) -> str:
    return f"ebmkit-my-{kind.replace('_', '-')}"


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of every kind, `my-KIND`, and what an editable installation leaves of each."""
    folder = tmp_path_factory.mktemp("projects")
    for kind in KINDS:
        project = new_plugin(kind, f"my-{kind}", folder / distribution(kind))
        entries = tomllib.loads((project / "pyproject.toml").read_text())["project"]["entry-points"][ENTRY_POINT_GROUP]
        info = folder / f"ebmkit_my_{kind}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution(kind)}\nVersion: 0.1.0\n")
        lines = [f"{name} = {module}" for name, module in entries.items()]
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n" + "\n".join(lines) + "\n")
    return folder


def installed(projects: Path) -> dict[str, str]:
    """The environment of a Python that finds all of them."""
    paths = [projects, *(projects / distribution(kind) for kind in KINDS)]
    return environment(PYTHONPATH=os.pathsep.join(map(str, paths)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_is_complete(kind: str, projects: Path) -> None:
    folder, module = projects / distribution(kind), f"ebmkit_my_{kind}"
    files = set(contents(folder))
    expected = PACKAGE_FILES | {f"{module}/{name}" for name in ("__init__.py", f"{kind}.py", "py.typed")}
    expected |= {f"tests/test_my_{kind}.py"} | ({f"{module}/network.py"} if kind == "energy" else set())
    assert files == expected
    assert not [name for name, data in contents(folder).items() if re.search(rb"\$\{?\w", data)], "a placeholder"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    major, minor, _ = ebmkit.__version__.split(".")
    assert project["name"] == distribution(kind)
    assert project["dependencies"] == [f"ebmkit>={major}.{minor},<{major}.{int(minor) + 1}"]
    assert project["entry-points"] == {ENTRY_POINT_GROUP: {distribution(kind).removeprefix("ebmkit-"): module}}
    assert f"PLUGIN_API = {PLUGIN_API}\n" in (folder / module / "__init__.py").read_text()
    readme = (folder / "README.md").read_text()
    assert readme.startswith(f"# {distribution(kind)}\n")
    assert f"ebmkit check-plugin {distribution(kind)}" in readme
    assert f"ebmkit check-plugin {distribution(kind)}" in (folder / ".github/workflows/ci.yml").read_text()


def test_every_project_passes_its_own_tests(projects: Path) -> None:
    words = ("-m", "pytest", "-v", "-p", "no:cacheprovider", "--import-mode=importlib")
    folders = [projects / distribution(kind) for kind in KINDS]
    done = run_process(*words, *folders, cwd=projects, env=installed(projects), module=False)
    assert done.code == 0, done.out + done.err
    for kind in KINDS:
        tests = [line for line in done.out.splitlines() if f"test_my_{kind}.py::" in line and " PASSED " in line]
        assert [line for line in tests if "Contract::" in line]
        assert [line for line in tests if "Contract::" not in line], "its own equation is tested, too"


CHECK_ALL = """
import contextlib, io, json, sys
from ebmkit.cli import main
for name in sys.argv[1:]:
    sys.argv, out = ["ebmkit", "check-plugin", name, "--json"], io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as end:
        findings = json.loads(out.getvalue())["findings"]
        print(json.dumps([name, end.code or 0, sorted({finding["outcome"] for finding in findings}), len(findings)]))
"""


def test_every_project_passes_check_plugin(projects: Path) -> None:
    names = [distribution(kind) for kind in KINDS]
    done = run_process("-c", CHECK_ALL, *names, cwd=projects, env=installed(projects), module=False)
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [name for name, *_ in told] == names, done.err
    for name, code, outcomes, count in told:
        assert code == 0, name
        assert "failed" not in outcomes
        assert count >= 11


def test_all_of_them_are_found_and_train_together(projects: Path, tmp_path: Path) -> None:
    done = run_process("list-plugins", "--json", cwd=tmp_path, env=installed(projects))
    listed = json.loads(done.out)
    assert listed["broken"] == []
    mine = {(item["kind"], item["name"], item["distribution"]) for item in listed["components"]}
    assert {(kind, f"my_{kind}", distribution(kind)) for kind in KINDS} <= mine

    table = tiny_table(write_shards(tmp_path / "shards"), train__steps=2, train__sample_every=2)
    table |= {kind: {"use": f"my_{kind}"} for kind in ("energy", "sampler", "objective")}
    table["buffer"] = {"use": "my_buffer", "size": 40}
    table["regularizers"] = [{"use": "my_regularizer"}]
    table["trackers"] = [{"use": "my_tracker"}]
    table["optimizer"] = {"learning_rate": {"use": "my_schedule", "start": 1e-3}}
    recipe = write_recipe(tmp_path / "mine.toml", table)
    done = run_process("train", recipe, "--run-dir", tmp_path / "run", cwd=tmp_path, env=installed(projects))
    assert done.code == 0, done.out + done.err
    assert "warning" not in done.out + done.err
    assert (tmp_path / "run" / "model.safetensors").is_file()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


CHECK_RECIPES = """
import json, sys
from ebmkit.cli import main
for words in json.load(sys.stdin):
    sys.argv = ["ebmkit", "check", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
"""


def test_readme_snippets_bind(projects: Path, tmp_path: Path) -> None:
    digits = tomllib.loads((Path(__file__).parent.parent / "recipes" / "digits.toml").read_text())
    checks: list[list[str]] = []
    for kind in KINDS:
        readme = (projects / distribution(kind) / "README.md").read_text()
        if kind == "feature_extractor":
            # No part of a recipe; test_metrics.py measures with one.
            assert "\nebmkit evaluate runs/digits/model.safetensors --extractor my_feature_extractor\n" in readme
            continue
        (snippet,) = (part.split("```")[0] for part in readme.split("```toml\n")[1:])
        (train,) = (line for line in readme.splitlines() if line.startswith("ebmkit train "))
        assert f"my_{kind}" in snippet
        assert f"my_{kind}" in train
        recipe = write_recipe(tmp_path / f"{kind}.toml", digits | tomllib.loads(snippet))
        checks += [[str(recipe)], list(_arguments(train))]
    done = subprocess.run(
        [sys.executable, "-c", CHECK_RECIPES],
        input=json.dumps(checks),
        env=installed(projects),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(checks) == 2 * len(KINDS) - 2
    assert "warning" not in done.stderr, "an example sweeps as far as the small recipe needs"


def _arguments(command: str) -> Iterator[str]:
    """The words of an `ebmkit train` command that `ebmkit check` takes, too."""
    words = iter(shlex.split(command)[2:])
    for word in words:
        if word == "--run-dir":
            next(words)
        else:
            yield word


def test_every_project_is_clean_and_typed(projects: Path) -> None:
    for tool in ("ruff", "mypy"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed; pip install -e '.[dev]'")
    folders = [distribution(kind) for kind in KINDS]
    checks = [["ruff", "check", "--no-cache", *folders], ["ruff", "format", "--no-cache", "--check", *folders]]
    packages = [f"{folder}/{folder.replace('-', '_')}" for folder in folders]
    checks += [["mypy", "--strict", "--cache-dir", str(projects / ".mypy"), *packages]]
    for command in checks:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=projects, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_says_what_it_made_and_what_to_do_next(tmp_path: Path) -> None:
    done = run_cli("new-plugin", "regularizer", "gap", cwd=tmp_path)
    assert done.code == 0
    assert "ebmkit_gap/regularizer.py" in done.out
    _, _, following = done.out.partition("next:\n")
    commands = [line.strip() for line in following.splitlines()]
    assert commands[:3] == ["cd ebmkit-gap", "pip install -e '.[test]'", "pytest"]
    assert commands[3:5] == ["ebmkit list-plugins", "ebmkit check-plugin ebmkit-gap"]
    assert commands[5].startswith("ebmkit train digits --run-dir runs/gap --set ")
    assert len(commands) == 6
    assert "\x1b" not in done.out
    assert done.err == ""


@pytest.mark.parametrize("name", ["my-gap", "my_gap", "ebmkit-my-gap", "ebmkit_my_gap"])
def test_names_follow_from_one_word(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = new_plugin("regularizer", name)
    assert folder == Path("ebmkit-my-gap")
    source = (folder / "ebmkit_my_gap" / "regularizer.py").read_text()
    assert "class MyGap(Regularizer):" in source
    assert 'name = "my_gap"' in source


@pytest.mark.parametrize("out", ["here", "here/", "./here"])
def test_nothing_is_written_over(out: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "precious.txt").write_text("mine")
    done = run_cli("new-plugin", "sampler", "gap", "--out", out, cwd=tmp_path)
    assert done.code == 2
    assert "here" in done.err
    assert contents(tmp_path) == {"here/precious.txt": b"mine"}


def test_a_file_in_the_way_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "ebmkit-gap").write_text("mine")
    done = run_cli("new-plugin", "sampler", "gap", cwd=tmp_path)
    assert done.code == 2
    assert contents(tmp_path) == {"ebmkit-gap": b"mine"}


def test_an_empty_folder_may_become_the_project(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run_cli("new-plugin", "sampler", "gap", "--out", "empty", cwd=tmp_path).code == 0
    assert (tmp_path / "empty" / "pyproject.toml").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_the_current_folder_may_become_the_project(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    done = run_process("new-plugin", "sampler", "gap", "--out", ".", cwd=tmp_path / "here")
    assert done.code == 0, done.err
    assert (tmp_path / "here" / "pyproject.toml").is_file()
    # The shell's own folder was replaced: `cd .` would not do in every shell.
    assert f"  cd {tmp_path / 'here'}\n" in done.out


BAD: list[tuple[str, str, str]] = [
    ("samplr", "gap", "did you mean 'sampler'?"),
    ("network", "gap", "use one of energy, sampler"),
    ("sampler", "Gap", "begins with a lower-case letter"),
    ("sampler", "../gap", "begins with a lower-case letter"),
    ("sampler", "gap;rm", "begins with a lower-case letter"),
    ("sampler", "9gap", "begins with a lower-case letter"),
    ("sampler", "gap-", "begins with a lower-case letter"),
    ("sampler", "", "begins with a lower-case letter"),
    ("sampler", "ebmkit-", "begins with a lower-case letter"),
    ("sampler", "g" * 100, "too long"),
    ("sampler", "gap__two", "begins with a lower-case letter"),
    ("sampler", "gap\n", "begins with a lower-case letter"),
    ("sampler", "sampler", "would name the class Sampler, which Python or ebmkit already has"),
    ("objective", "buffered-objective", "would name the class BufferedObjective"),
    ("sampler", "none", "would name the class None"),
    ("buffer", "exception", "would name the class Exception"),
    ("sampler", "langevin", "sampler 'langevin' is already there, from ebmkit"),
    ("sampler", "wgan", "the module ebmkit_wgan is already there, from "),
]


@pytest.mark.parametrize(("kind", "name", "words"), BAD)
def test_bad_names_and_kinds_are_told(kind: str, name: str, words: str, tmp_path: Path) -> None:
    done = run_cli("new-plugin", kind, name, cwd=tmp_path)
    assert done.code == 2
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_half_a_project_never_has_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    written = Path.write_text
    calls = 0

    def some(self: Path, *args: Any, **kwargs: Any) -> int:
        nonlocal calls
        calls += 1
        return full() if calls > 3 else written(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", some)
    with pytest.raises((BadInput, OSError), match="No space left"):
        new_plugin("sampler", "gap", tmp_path / "gap")
    assert calls > 3
    assert list(tmp_path.iterdir()) == [], writing.__name__


def test_a_folder_that_fills_meanwhile_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, sync = tmp_path / "gap", writing.sync_folder

    def fill(folder: Path) -> None:
        target.mkdir(exist_ok=True)
        (target / "precious.txt").write_text("mine")
        sync(folder)

    monkeypatch.setattr(writing, "sync_folder", fill)
    with pytest.raises(BadInput, match="cannot be written"):
        new_plugin("sampler", "gap", target)
    assert contents(tmp_path) == {"gap/precious.txt": b"mine"}


KILLED = """
import os, signal, sys
from pathlib import Path
from ebmkit.scaffold import names_of, new_plugin, writing
from ebmkit.scaffold.names import LONGEST
synced = 0
def sync_file(path):
    global synced
    synced += 1
    if synced == 5:
        os.kill(os.getpid(), signal.SIGKILL)
writing.sync_file = sync_file
new_plugin("energy", "gap", Path("gap"))
"""


def test_a_kill_leaves_no_half_project_and_the_next_try_works(tmp_path: Path) -> None:
    assert run_process("-c", KILLED, cwd=tmp_path, module=False).code == -signal.SIGKILL
    (half,) = tmp_path.iterdir()
    assert half.name.startswith(".gap-"), "what is left is hidden, and is no project by its name"
    assert any(half.rglob("*.*"))
    assert (new_plugin("energy", "gap", tmp_path / "gap") / "pyproject.toml").is_file()


def test_no_name_clashes_with_what_a_project_imports(projects: Path) -> None:
    imported = set()
    for path in projects.glob("ebmkit-my-*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("ebmkit_my_"):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ClassDef) and not node.name.startswith(("My", "TestMy")):
                imported.add(node.name)
    classes = {name for name in imported if re.fullmatch(r"([A-Z][a-z]+)+", name)}
    assert {"BaseOptions", "EnergyContract", "EnergyModel", "Field", "Network", "Options", "Tensor"} <= classes
    for name in classes:
        with pytest.raises(BadInput, match=f"would name the class {name}"):
            names_of("-".join(re.findall("[A-Z][a-z]+", name)).lower())


def test_the_longest_names_keep_to_the_line_length(tmp_path: Path) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed; pip install -e '.[dev]'")
    for kind in KINDS:
        name = f"x{kind}".ljust(LONGEST, "x")
        new_plugin(kind, name, tmp_path / kind)
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_imports_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from ebmkit.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert "ebmkit.scaffold" in sys.modules
assert "torch" not in sys.modules
"""
    done = run_process("-c", code, "new-plugin", "energy", "gap", cwd=tmp_path, module=False)
    assert done.code == 0, done.err
    assert (tmp_path / "ebmkit-gap").is_dir()


def test_templates_ship_in_the_package() -> None:
    folder = Path(str(writing.__file__)).parent / "templates"
    assert {path.name for path in folder.iterdir()} == {"shared", *KINDS}
    assert all(path.suffix == ".txt" for path in folder.rglob("*") if path.is_file()), "no tool takes them for code"
