"""The built wheel holds every plugin and recipe; each plugin folder is a complete project of its own."""

from __future__ import annotations

import configparser
import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import ebmkit

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path for path in (ROOT / "plugins").iterdir() if path.is_dir())
BY_NAME = {path.name: path for path in PLUGINS}
COMPLETE = all(importlib.util.find_spec(name) for name in ("build", "hatchling"))


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    if not COMPLETE:
        pytest.skip("needs the packages 'build' and 'hatchling' (pip install 'ebmkit[dev]' hatchling)")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    assert path.name == f"ebmkit-{ebmkit.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_module_of_the_core_and_of_every_plugin(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    sources = [ROOT, *PLUGINS]
    expected = {
        file.relative_to(source).as_posix()
        for source in sources
        for package in source.glob("ebmkit*")
        for file in package.rglob("*.py")
    }
    assert len(expected) > 50
    assert expected <= inside
    packages = {name.split("/")[0] for name in inside if name.endswith(".py")}
    assert packages == {"ebmkit", *(plugin.name.replace("-", "_") for plugin in PLUGINS)}


def test_the_wheel_holds_every_recipe_as_it_is(wheel: zipfile.ZipFile) -> None:
    folder = ROOT / "recipes"
    files = sorted(folder.rglob("*.toml"))
    assert {"recipes", "sweeps"} <= {file.parent.name for file in files}
    for file in files:
        assert wheel.read(f"ebmkit/recipes/{file.relative_to(folder).as_posix()}") == file.read_bytes()


def test_the_wheel_holds_the_reference_of_the_benchmark(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("ebmkit/bench/reference.py") == (ROOT / "benchmarks" / "reference.py").read_bytes()


def test_the_wheel_holds_the_page_of_a_report(wheel: zipfile.ZipFile) -> None:
    files = sorted((ROOT / "ebmkit" / "reporting" / "assets").iterdir())
    assert {file.suffix for file in files} == {".css", ".html", ".js"}
    for file in files:
        assert wheel.read(f"ebmkit/reporting/assets/{file.name}") == file.read_bytes()


def test_the_wheel_holds_neither_tests_nor_plugin_projects(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert not [name for name in names if "test_" in name or name.startswith(("tests/", "plugins/"))]
    assert not [name for name in names if name.endswith(("pyproject.toml", ".pyc"))]
    marked = {name.split("/")[0] for name in names if name.endswith("py.typed")}
    assert marked == {"ebmkit", *(plugin.name.replace("-", "_") for plugin in PLUGINS)}


def test_the_wheel_s_entry_points_are_those_of_the_plugins(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(wheel.read(name).decode())
    own = [read(plugin)["project"]["entry-points"]["ebmkit"] for plugin in PLUGINS]
    assert dict(parser["ebmkit"]) == {entry: module for entries in own for entry, module in entries.items()}
    assert dict(parser["console_scripts"]) == {"ebmkit": "ebmkit.cli:main"}
    for module in parser["ebmkit"].values():
        assert f"{module}/__init__.py" in wheel.namelist()


def test_the_root_project_lists_every_plugin_everywhere() -> None:
    root = read(ROOT)
    modules = {plugin.name.replace("-", "_") for plugin in PLUGINS}
    assert set(root["project"]["entry-points"]["ebmkit"].values()) == modules
    packages = root["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) == {"ebmkit"} | {
        f"plugins/{plugin.name}/{plugin.name.replace('-', '_')}" for plugin in PLUGINS
    }
    assert set(root["tool"]["importlinter"]["root_packages"]) == {"ebmkit"} | modules
    assert set(root["tool"]["importlinter"]["contracts"][0]["forbidden_modules"]) == modules


def test_plugins_are_kept_from_every_internal_module() -> None:
    (contract,) = [c for c in read(ROOT)["tool"]["importlinter"]["contracts"] if "public modules" in c["name"]]
    modules = {path.stem for path in (ROOT / "ebmkit").iterdir() if path.suffix == ".py" or path.is_dir()}
    public = {"errors", "layers", "noise", "reachability", "spectrum", "__init__", "__main__", "__pycache__", "recipes"}
    internal = {f"ebmkit.{name}" for name in modules - public if not name.startswith("py.")}
    assert set(contract["forbidden_modules"]) == internal - {"ebmkit.py"}


def test_there_is_one_version() -> None:
    root = read(ROOT)
    assert root["project"]["dynamic"] == ["version"]
    major, minor, _ = ebmkit.__version__.split(".")
    for plugin in PLUGINS:
        (dependency,) = [item for item in read(plugin)["project"]["dependencies"] if item.startswith("ebmkit")]
        assert dependency == f"ebmkit>={major}.{minor},<{major}.{int(minor) + 1}"


@pytest.mark.parametrize("name", BY_NAME)
def test_a_plugin_folder_is_a_complete_project(name: str) -> None:
    folder, module = BY_NAME[name], name.replace("-", "_")
    data = read(folder)
    project = data["project"]
    assert project["name"] == name
    assert project["version"] == ebmkit.__version__
    assert project["license"] == "Apache-2.0"
    assert project["requires-python"] == read(ROOT)["project"]["requires-python"]
    assert "Private :: Do Not Upload" in project["classifiers"]
    assert project["description"]
    assert project["entry-points"] == {"ebmkit": {name.removeprefix("ebmkit-"): module}}
    assert data["build-system"]["build-backend"] == "hatchling.build"
    assert data["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [module]
    assert (folder / module / "__init__.py").is_file()
    assert (folder / module / "py.typed").is_file()
    tests = list((folder / "tests").glob("test_*.py"))
    assert tests
    readme = (folder / project["readme"]).read_text(encoding="utf-8")
    assert readme.startswith(f"# {name}\n")
    # A feature extractor is no part of a recipe.
    assert ("```toml" in readme) != ("--extractor" in readme)
    assert "ebmkit describe " in readme


def test_test_files_have_unique_names() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "plugins").glob("*/tests/test_*.py")]
    names = [file.name for file in files]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_recipe_snippets_of_a_plugin_s_readme_bind(name: str) -> None:
    from ebmkit.recipe import from_table

    digits = tomllib.loads((ROOT / "recipes" / "digits.toml").read_text(encoding="utf-8"))
    snippets = [
        part.split("```")[0] for part in (BY_NAME[name] / "README.md").read_text("utf-8").split("```toml\n")[1:]
    ]
    assert snippets or "--extractor" in (BY_NAME[name] / "README.md").read_text("utf-8")
    for snippet in snippets:
        from_table({**digits, **tomllib.loads(snippet)}, "README.md", "readme")


def test_a_plugin_project_builds_alone(tmp_path: Path) -> None:
    if not COMPLETE:
        pytest.skip("needs the packages 'build' and 'hatchling' (pip install 'ebmkit[dev]' hatchling)")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check"]
    folder = BY_NAME["ebmkit-langevin"]
    done = subprocess.run(
        [*command, "--outdir", str(tmp_path), str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(path).namelist()
    assert "ebmkit_langevin/sampler.py" in names
    assert not [name for name in names if "test" in name]
