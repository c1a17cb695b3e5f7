"""The documentation agrees with the code. `python tests/test_docs.py` rewrites the tables that are made from it."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from safetensors import safe_open

import ebmkit
from ebmkit import hookspecs, pipeline
from ebmkit import recipe as recipes
from ebmkit.binder import Binder
from ebmkit.chains import BufferChains
from ebmkit.cli.app import app
from ebmkit.cli.training import collect
from ebmkit.description import OptionDescription, describe_component, describe_option
from ebmkit.interfaces import KINDS, Energy, Objective
from ebmkit.plugins import LoadedPlugin, Registered, components_of, discover
from ebmkit.recipe import LISTS, PARTS, SECTIONS, shipped_recipes
from ebmkit.registry import Registry, default_registry
from ebmkit.resuming import fixed

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("**/*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))])
REWRITE = "run `python tests/test_docs.py` and look at what it changed"

# --- Tables that are made from the code ------------------------------------------------------------------------------


def cell(text: object) -> str:
    """Text for a table's cell: pipes and, outside of code, asterisks would be markup."""
    parts = str(text).replace("\n", " ").replace("|", "or" if " | " in str(text) else "\\|").split("`")
    return "`".join(part if i % 2 else part.replace("*", "\\*") for i, part in enumerate(parts))


def toml(value: object) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in value.items())} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value) if isinstance(value, str) else str(value)


def table_of(options: Iterable[OptionDescription]) -> list[str]:
    """A table of options."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for option in options:
        kind = ", ".join(filter(None, [option.type, option.bounds]))
        default = "required" if option.required else "none" if option.default is None else f"`{toml(option.default)}`"
        rows.append(f"| `{option.name}` | {cell(kind)} | {default} | {cell(option.description)} |")
    return rows


def section_table(name: str) -> list[str]:
    """The keys of one of the recipe's own sections."""
    return ["", *table_of(describe_option(key, field) for key, field in SECTIONS[name].model_fields.items()), ""]


def recipe_rows() -> list[str]:
    """One row for each shipped recipe."""
    rows = [
        "",
        "| recipe | images | network | T / K | batch | steps | a sweep's reach |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in shipped_recipes():
        recipe = recipes.load(name)
        channels, height, width = recipe.data.shape
        ratio = pipeline.reach_ratio(recipe)
        cells = [
            f"`{name}`",
            f"{height}x{width}, {'colour' if channels == 3 else 'grey'}",
            f"`{recipe.energy.name}`",
            f"{recipe.time_steps} / {recipe.sampler.options.steps}",
            f"{recipe.train.batch_size}",
            f"{recipe.train.steps:,}",
            "none" if ratio is None else f"{ratio:.2f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, ""]


def components() -> list[str]:
    """Every first-party component with its options."""
    lines: list[str] = []
    for kind in KINDS:
        lines += ["", f"## {kind}"]
        for item in default_registry():
            if item.kind == kind and item.distribution == "ebmkit":
                description = describe_component(item)
                lines += ["", f"### {item.name}", "", *(cell(line) for line in description.summary.splitlines()), ""]
                lines += table_of(description.options) if description.options else ["It has no options."]
    return [*lines, ""]


def fixed_keys() -> list[str]:
    """What a resumed run cannot change, as the code has it: parts as a whole, the keys of other sections."""
    keys = fixed(recipes.load("digits"))
    shown = {key if key.startswith("data.") else key.split(".")[0] for key in keys}
    return ["", ", ".join(f"`{key}`" for key in sorted(shown)) + ".", ""]


BLOCKS: dict[str, Callable[[], list[str]]] = {
    "options data": lambda: section_table("data"),
    "options optimizer": lambda: section_table("optimizer"),
    "options train": lambda: section_table("train"),
    "recipes": recipe_rows,
    "fixed": fixed_keys,
    "components": components,
}
BLOCK = re.compile(r"<!-- begin: ([a-z ]+) -->\n(.*?)<!-- end -->", re.DOTALL)


def with_tables(text: str) -> str:
    """A page with its blocks as the code has them."""
    return BLOCK.sub(lambda m: f"<!-- begin: {m[1]} -->\n" + "\n".join([*BLOCKS[m[1]](), "<!-- end -->"]), text)


def test_every_block_has_its_place() -> None:
    found = [name for page in PAGES for name, _ in BLOCK.findall(page.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(BLOCKS)


@pytest.mark.parametrize("page", ["recipes.md", "components.md"])
def test_tables_are_what_the_code_says(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text == with_tables(text), f"docs/{page} is older than the code: {REWRITE}"


def test_every_component_and_option_is_documented() -> None:
    text = (DOCS / "components.md").read_text(encoding="utf-8")
    for item in default_registry():
        if item.distribution == "ebmkit":
            _, _, section = text.partition(f"\n### {item.name}\n")
            section = section.partition("\n### ")[0]
            assert section, f"components.md lacks {item.kind} {item.name}"
            for key in item.component.Options.model_fields:  # type: ignore[attr-defined]
                assert f"| `{key}` |" in section, f"components.md lacks {item.name}.{key}"


def test_every_hook_is_documented() -> None:
    text = (DOCS / "interfaces.md").read_text(encoding="utf-8")
    hooks = [name for name in dir(hookspecs) if name.startswith("ebmkit_")]
    assert len(hooks) >= 10
    for hook in hooks:
        assert f"`{hook}" in text, hook


# --- The site --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_strict_build(site: Path) -> None:
    for page in DOCS.glob("*.md"):
        html = site / ("index.html" if page.stem == "index" else f"{page.stem}/index.html")
        assert html.is_file(), html


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
    for page in site.glob("**/*.html"):
        assert loaded.findall(page.read_text(encoding="utf-8")) == [], page
    for style in site.glob("**/*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_reference_shows_the_public_names(site: Path) -> None:
    html = (site / "reference" / "index.html").read_text(encoding="utf-8")
    lost = {"PLUGIN_API", "hookimpl"}  # a number and a decorator: explained in words on the interfaces page
    for name in set(ebmkit.__all__) - lost:
        assert re.search(rf'id="ebmkit\.[a-z_.]*\b{name}"', html), f"reference.md lacks {name}"


# --- Links -----------------------------------------------------------------------------------------------------------

FENCE = re.compile(r"^(?P<indent> *)```(?P<head>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        own = re.search(r"\{ #([\w-]+) \}", heading)
        plain = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        found.add(own[1] if own else re.sub(r"[-\s]+", "-", plain))
    return found


# --- Code in the pages -----------------------------------------------------------------------------------------------


def fences(language: str) -> Iterator[tuple[str, str, str]]:
    """(page, head, body) of every fenced block in this language."""
    for page in PAGES:
        for match in FENCE.finditer(page.read_text(encoding="utf-8")):
            if match["head"].split(" ")[0] == language:
                yield page.relative_to(ROOT).as_posix(), match["head"], match["body"]


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
    for name, path in shipped_recipes().items():
        for line in re.findall(
            r"^# (ebmkit \S.*?)(?:  +.*| (?:\w+s (?:it|this)|goes on)\b.*)?$", path.read_text("utf-8"), re.M
        ):
            yield f"recipes/{name}.toml", line
        make = recipes.read_toml(path)["data"].get("make")
        if make:
            yield f"recipes/{name}.toml", make


COMMANDS = sorted(set(commands()))


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 40
    assert {place for place, _ in COMMANDS} >= {"README.md", "docs/quickstart.md", "recipes/digits.toml"}


@pytest.mark.parametrize(("place", "command"), COMMANDS)
def test_command_parses(place: str, command: str, tmp_path: Path) -> None:
    group: Any = typer.main.get_command(app)
    _, name, *arguments = shlex.split(command, comments=True)
    if name.startswith("-"):
        assert any(name in parameter.opts for parameter in group.params) or name == "--help"
        return
    assert name in group.commands, f"{place}: there is no command {name}"
    if not arguments or "..." in arguments:
        return
    values = group.commands[name].make_context(name, arguments).params
    if name in ("train", "check"):
        # The keys and values that are set must be good ones, too.
        source = values["recipe"]
        shipped = shipped_recipes()
        if source in shipped or (ROOT / source).is_file():
            with_r1 = None
            if "r1" in command:
                found = r1(tmp_path)
                example = LoadedPlugin("r1", sys.modules[found.component.__module__], (found,))
                with_r1 = Registry([*discover(), example])
            changes = collect(values["set_values"], values["extra"])
            recipes.load(shipped.get(source, ROOT / source), changes, with_r1)
        else:
            assert re.fullmatch(r"[A-Z]+|(?:my|mine)[\w-]*\.toml", source), f"{place}: no recipe {source}"
    if name == "sample":
        sampler_only = collect(values["set_values"], values["extra"])
        assert all(key.startswith("sampler.") for key in sampler_only)
        recipes.load("digits", sampler_only)
    if name == "describe" and values["kind"].islower() and values["name"] != "r1":
        default_registry().find(values["kind"], values["name"])


PYTHON = list(fences("python"))


@pytest.mark.parametrize(("page", "head", "body"), PYTHON, ids=[page for page, _, _ in PYTHON])
def test_python_compiles(page: str, head: str, body: str) -> None:
    compile(body, page, "exec")
    for name in re.findall(r"(?<!from )\bebmkit\.([A-Za-z_]+)", body):
        assert hasattr(ebmkit, name), f"{page}: ebmkit.{name}"
    for names in re.findall(r"from ebmkit import ([^\n]+)", body):
        assert set(names.split(", ")) <= set(ebmkit.__all__), f"{page}: {names}"


TOML = list(fences("toml"))


@pytest.mark.parametrize(("page", "head", "body"), TOML, ids=[page for page, _, _ in TOML])
def test_toml_binds(page: str, head: str, body: str) -> None:
    table = tomllib.loads(body)
    if "project" in table:
        assert table["project"]["entry-points"]["ebmkit"]
        return
    assert table.keys() <= set(recipes.KEYS), page
    binder = Binder(default_registry())
    for kind in table.keys() & set(PARTS):
        binder.component(kind, table[kind], kind)
    for key, kind in LISTS.items():
        for i, item in enumerate(table.get(key, [])):
            if item["use"] != "r1":
                binder.component(kind, item, f"{key}.{i}")
    for name in table.keys() & SECTIONS.keys():
        # A part of a section need not be complete.
        given = [problem for problem in _problems(name, table[name]) if problem != "is required"]
        assert given == [], page
    assert [str(problem) for problem in binder.problems] == [], page
    if {*PARTS, "data", "train", "time_steps"} <= table.keys():
        pipeline.cross_check(recipes.from_table(table, page, "docs"), page)


def _problems(section: str, values: dict[str, Any]) -> list[str]:
    binder = Binder(default_registry())
    binder.options(SECTIONS[section], values, section)
    return [problem.message for problem in binder.problems]


def module_of(name: str, body: str, folder: Path) -> ModuleType:
    """A module of this name with this source; it stays in `sys.modules`, where pydantic looks names up."""
    path = folder / f"{name}.py"
    path.write_text(body, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_example_plugin(tmp_path: Path) -> None:
    """The regularizer of interfaces.md is a plugin that ebmkit accepts, and its penalty is R1's."""
    found = r1(tmp_path)
    assert (found.kind, found.name) == ("regularizer", "r1")
    source = Path(str(sys.modules[found.component.__module__].__file__)).read_text(encoding="utf-8")
    assert not re.search(r"^(?:import|from) torch", source, re.MULTILINE), "importing a plugin imports no torch"
    regularizer = found.component(found.component.Options(weight=4.0), ebmkit.Context((1, 2, 2), 3))
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = ebmkit.Pairs(lambda x, t: scale / 2 * x.square().sum((1, 2, 3)), x, x, torch.ones(5, dtype=torch.int64))
    term = regularizer.penalty(pairs, torch.Generator())
    # f = s/2 |x|^2 has the gradient s x: the penalty is w/2 s^2 mean |x|^2, its derivative w s mean |x|^2.
    square = x.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(term.value, 2 * 9 * square)
    term.value.backward()
    torch.testing.assert_close(scale.grad, 4 * 3 * square)


def r1(folder: Path) -> Registered:
    """The example plugin's component."""
    (body,) = (body for _, head, body in PYTHON if "ebmkit_r1/__init__.py" in head)
    (found,) = components_of(module_of("ebmkit_r1", body, folder), "r1", "ebmkit-r1", "0.1.0")
    return found


SKETCHES = [body for page, _, body in PYTHON if page == "docs/objectives.md"]


@pytest.mark.parametrize("number", range(len(SKETCHES)))
def test_sketched_objective_trains(number: int, tmp_path: Path) -> None:
    """Each sketch of objectives.md gives a loss that reaches the parameters through pairs made as the trainer does."""
    module = module_of(f"sketch_{number}", SKETCHES[number], tmp_path)
    own = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    (objective_class,) = (item for item in own if issubclass(item, Objective))
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


# --- What a run writes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"train.steps": 2, "train.batch_size": 4, "train.log_every": 1, "train.sample_every": 2}
    small |= {"train.sample_count": 1, "energy.channels": 8, "buffer.size": 8, "train.device": "cpu"}
    return ebmkit.train("digits", small, tmp_path_factory.mktemp("docs") / "run").folder


def section(heading: str) -> str:
    """The text of recipes.md from this heading to the next of the same or a higher level."""
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, heading
    level = heading.split(" ")[0]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def keys_in(text: str) -> list[str]:
    """What stands in code in the first cell of each row."""
    return [key for row in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)]


def test_metrics_are_documented(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    everyones, others = section("### Metrics").split("The objective and the regularizers add theirs:")
    assert set(keys_in(everyones)) <= lines[-1].keys()
    assert lines[-1].keys() <= {*keys_in(everyones), *keys_in(others)}


def test_model_metadata_is_documented(run: Path) -> None:
    with safe_open(run / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert set(keys_in(section("## The model file"))) == metadata.keys()


def test_run_folder_is_documented(run: Path) -> None:
    documented = section("## The run folder")
    names = {re.sub(r"\d{9}", "N", path.relative_to(run).as_posix()) for path in run.glob("**/*") if path.is_file()}
    plain = re.sub(r"\d{9}", "N", documented)
    for name in names:
        folder, _, file = name.rpartition("/")
        assert f"`{name}`" in plain or (f"`{folder}/`" in plain and f"`{file}`" in plain), name


def rewrite() -> None:
    """Bring the tables up to date."""
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        if BLOCK.search(text):
            page.write_text(with_tables(text), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
