"""The code in the pages of the documentation works: commands parse, recipes bind, examples keep their contracts."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import ebmkit
from docs_pages import FENCE, PAGES, ROOT, fences, module_of, with_tutorial
from ebmkit import pipeline
from ebmkit import recipe as recipes
from ebmkit.binder import Binder
from ebmkit.chains import BufferChains
from ebmkit.cli.app import app
from ebmkit.cli.training import collect
from ebmkit.interfaces import KINDS, Energy, Objective
from ebmkit.plugins import LoadedPlugin, components_of
from ebmkit.recipe import LISTS, PARTS, SECTIONS, shipped_recipes
from ebmkit.sweeps.file import load_sweep, shipped_sweeps
from ebmkit.sweeps.plan import plan
from ebmkit.testing.checking import check_plugins

# --- Commands --------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """(place, command) of every ebmkit command in the pages, the recipes and their `make`."""
    for page, _, body in fences("bash"):
        for line in body.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||;(?=\s)| > ", line):
                words = re.sub(r"^(?:\S*=\S+ )*(?:\.venv/bin/)?(?:python -m )?", "", part.strip())
                if words.startswith("ebmkit "):
                    yield page, words
    for page in PAGES:
        for span in re.findall(r"`(ebmkit [^`\n]+)`", FENCE.sub("", page.read_text(encoding="utf-8"))):
            yield page.relative_to(ROOT).as_posix(), span.partition(" > ")[0]
    for name, path in (shipped_recipes() | shipped_sweeps()).items():
        for line in re.findall(
            r"^# (ebmkit \S.*?)(?:  +.*| (?:\w+s (?:it|this)|goes on)\b.*)?$", path.read_text("utf-8"), re.M
        ):
            yield f"recipes/{name}.toml", line
        make = recipes.read_toml(path).get("data", {}).get("make")
        if make:
            yield f"recipes/{name}.toml", make


COMMANDS = sorted(set(commands()))


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 60
    assert {place for place, _ in COMMANDS} >= {"README.md", "docs/quickstart.md", "recipes/digits.toml"}


@pytest.mark.parametrize(("place", "command"), COMMANDS)
def test_command_parses(place: str, command: str) -> None:
    group: Any = typer.main.get_command(app)
    _, name, *arguments = shlex.split(command, comments=True)
    if name.startswith("-"):
        assert any(name in parameter.opts for parameter in group.params) or name == "--help"
        return
    assert name in group.commands, f"{place}: there is no command {name}"
    while (inner := getattr(group.commands[name], "commands", None)) and arguments and not arguments[0].startswith("-"):
        # A command of a group, such as `ebmkit plot curves`.
        group, (name, *arguments) = group.commands[name], arguments
        assert name in inner, f"{place}: there is no command {name}"
    if not arguments or "..." in arguments:
        return
    values = group.commands[name].make_context(name, arguments).params
    if name in ("train", "check", "bench", "tune"):
        # The keys and values that are set must be good ones, too.
        source = values["recipe"]
        shipped = shipped_recipes()
        if source in shipped or (ROOT / source).is_file():
            changes = collect(values["set_values"], values["extra"])
            recipes.load(shipped.get(source, ROOT / source), changes, with_tutorial())
        else:
            assert re.fullmatch(r"[A-Z]+|(?:my|mine)[\w-]*\.toml", source), f"{place}: no recipe {source}"
    if name == "sweep" and values["sweep_file"] not in ("SWEEP.toml", "mine.toml"):
        assert plan(load_sweep(values["sweep_file"]))
    if name == "sample":
        sampler_only = collect(values["set_values"], values["extra"])
        assert all(key.startswith("sampler.") for key in sampler_only)
        recipes.load("digits", sampler_only)
    if name in ("describe", "new-plugin") and values["kind"] != "KIND":
        assert values["kind"] in KINDS
        if name == "describe":
            with_tutorial().find(values["kind"], values["name"])


# --- Recipes ---------------------------------------------------------------------------------------------------------

TOML = list(fences("toml"))


@pytest.mark.parametrize(("page", "head", "body"), TOML, ids=[page for page, _, _ in TOML])
def test_toml_binds(page: str, head: str, body: str, tmp_path: Path) -> None:
    table = tomllib.loads(body)
    if "project" in table:
        assert table["project"]["entry-points"]["ebmkit"]
        return
    if "recipe" in table:
        path = tmp_path / "sweep.toml"
        path.write_text(body, encoding="utf-8")
        assert plan(load_sweep(path)), page
        return
    assert table.keys() <= set(recipes.KEYS), page
    binder = Binder(with_tutorial())
    for kind in table.keys() & set(PARTS):
        binder.component(kind, table[kind], kind)
    for key, kind in LISTS.items():
        for i, item in enumerate(table.get(key, [])):
            binder.component(kind, item, f"{key}.{i}")
    for name in table.keys() & SECTIONS.keys():
        # A part of a section need not be complete.
        given = [problem for problem in _problems(name, table[name]) if problem != "is required"]
        assert given == [], page
    assert [str(problem) for problem in binder.problems] == [], page
    if {*PARTS, "data", "train", "time_steps"} <= table.keys():
        pipeline.cross_check(recipes.from_table(table, page, "docs", registry=with_tutorial()), page)


def _problems(section: str, values: dict[str, Any]) -> list[str]:
    binder = Binder(with_tutorial())
    binder.options(SECTIONS[section], values, section)
    return [problem.message for problem in binder.problems]


# --- Python ----------------------------------------------------------------------------------------------------------

PYTHON = list(fences("python"))


@pytest.mark.parametrize(("page", "head", "body"), PYTHON, ids=[page for page, _, _ in PYTHON])
def test_python_compiles(page: str, head: str, body: str) -> None:
    compile(body, page, "exec")
    for name in re.findall(r"(?<!from )\bebmkit\.([A-Za-z_]+)", body):
        assert hasattr(ebmkit, name), f"{page}: ebmkit.{name}"
    for names in re.findall(r"from ebmkit import ([^\n(]+)", body):
        assert set(names.split(", ")) <= set(ebmkit.__all__), f"{page}: {names}"


PLUGINS = {page.removesuffix(".md"): body for page, _, body in PYTHON if "\nPLUGIN_API = 1\n" in body}
"""The complete plugins in the pages; one for each kind, and one of hooks."""


def test_every_kind_has_an_example() -> None:
    pages = {f"docs/plugins/{name}" for name in (*KINDS, "hooks")}
    assert PLUGINS.keys() - {"docs/plugins/index"} == pages


@pytest.mark.parametrize("page", sorted(PLUGINS.keys() - {"docs/plugins/index"}))
def test_the_example_of_a_page_keeps_its_contract(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = page.rpartition("/")[2]
    # Where the process of the rule on importing finds it.
    monkeypatch.syspath_prepend(tmp_path)
    module = module_of(f"example_{name}", PLUGINS[page], tmp_path)
    found = tuple(components_of(module, module.__name__, "example", "1.0"))
    assert [item.kind for item in found] == ([name] if name in KINDS else [])
    plugin = LoadedPlugin(module.__name__, module, found, "example", "1.0")
    findings = list(check_plugins([plugin]))
    assert len(findings) >= 5
    assert [finding for finding in findings if finding.outcome == "failed"] == []


def test_the_example_of_a_schedule_option(tmp_path: Path) -> None:
    (body,) = (body for page, _, body in PYTHON if page == "docs/plugins/schedule.md" and "ScheduleOption" in body)
    options = module_of("example_option", body, tmp_path).Options
    assert options().strength(0.7) == 0.1
    assert options(strength={"use": "linear", "start": 1.0}).strength(0.25) == 0.75


# --- The sketches of objectives.md -----------------------------------------------------------------------------------

SKETCHES = [body for page, _, body in PYTHON if page == "docs/objectives.md"]


@pytest.mark.parametrize("number", range(len(SKETCHES)))
def test_sketched_objective_trains(number: int, tmp_path: Path) -> None:
    """Each sketch gives a loss that reaches the parameters through pairs made as the trainer does."""
    module = module_of(f"sketch_{number}", SKETCHES[number], tmp_path)
    own = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    (objective_class,) = (item for item in own if issubclass(item, Objective))
    assert objective_class.needs_double_backward == ("create_graph=True" in SKETCHES[number])
    recipe = recipes.load("digits", {"buffer.size": 16, "energy.channels": 8, "time_steps": 4})
    context = recipe.context()
    energies = [item for item in own if issubclass(item, Energy)]
    model = (
        energies[0](energies[0].Options(), context).build() if energies else pipeline.build_energy(recipe, context, [])
    )
    random = torch.Generator().manual_seed(0)
    chains = BufferChains(model, recipe.sampler.build(context), recipe.buffer.build(context), random)
    objective = objective_class(objective_class.Options(), context)
    x_pos, labels = torch.rand(6, 1, 8, 8, generator=random) * 2 - 1, torch.tensor([3, -1, 0, 9, -1, 5])
    with pipeline.frozen(model), torch.no_grad():
        pairs = objective.pairs(model, x_pos, labels, chains, random)
    assert not pairs.x_neg.requires_grad
    assert pairs.x_neg.shape == x_pos.shape
    term = objective.loss(pairs)
    assert all(not value.requires_grad and value.ndim == 0 for value in term.metrics.values())
    term.value.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool(gradient.abs().max() > 0) for gradient in gradients)
