"""The documentation agrees with the code. `python tests/test_docs.py` rewrites the parts that are made from it."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

import ebmkit
from docs_pages import DOCS, FENCE, PAGES, ROOT, text_of
from ebmkit import hookspecs, pipeline, testing
from ebmkit import recipe as recipes
from ebmkit.description import OptionDescription, describe_component, describe_option
from ebmkit.interfaces import INTERFACES, KINDS
from ebmkit.recipe import SECTIONS, shipped_recipes
from ebmkit.registry import default_registry
from ebmkit.resuming import fixed
from ebmkit.testing import CONTRACTS, Contract, rules

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
    return table_of(describe_option(key, field) for key, field in SECTIONS[name].model_fields.items())


def recipe_rows() -> list[str]:
    """One row for each shipped recipe."""
    rows = ["| recipe | images | network | T / K | batch | steps | a sweep's reach |", "|---|---|---|---|---|---|---|"]
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
    return rows


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
    return lines[1:]


def fixed_keys() -> list[str]:
    """What a resumed run cannot change, as the code has it: parts as a whole, the keys of other sections."""
    keys = fixed(recipes.load("digits"))
    shown = {key if key.startswith("data.") else key.split(".")[0] for key in keys}
    return [", ".join(f"`{key}`" for key in sorted(shown)) + "."]


def own_rules(contract: type[object]) -> dict[str, str]:
    """The rules of a contract that are not those of all kinds."""
    return {name: text for name, text in rules(contract).items() if name not in rules(Contract)}  # type: ignore[arg-type]


def rule_list(found: dict[str, str]) -> list[str]:
    """Rules as `ebmkit check-plugin` names them, each with its sentence."""
    return [f"- **{name.removeprefix('test_').replace('_', ' ')}**: {cell(text)}" for name, text in found.items()]


def hook_sections(names: Iterable[str]) -> list[str]:
    """The signature and docstring of each hook."""
    lines: list[str] = []
    for name in names:
        hook = getattr(hookspecs, name)
        signature = inspect.signature(hook)
        # Annotations are text, as no hook may need torch to be imported.
        parameters = ", ".join(
            f"{parameter.name}: {parameter.annotation}" for parameter in signature.parameters.values()
        )
        code = [f"def {name}({parameters}) -> {signature.return_annotation}: ..."]
        if len(code[0]) > 90:
            code = [f"def {name}(", f"    {parameters}", f") -> {signature.return_annotation}: ..."]
        lines += ["", f"### {name}", "", "```python", *code, "```", ""]
        lines += [cell(line) for line in (inspect.getdoc(hook) or "").splitlines()]
    return lines[1:]


BLOCKS: dict[str, Callable[[], list[str]]] = {
    "options data": lambda: section_table("data"),
    "options optimizer": lambda: section_table("optimizer"),
    "options engine": lambda: section_table("engine"),
    "options train": lambda: section_table("train"),
    "options fast": lambda: section_table("fast"),
    "recipes": recipe_rows,
    "fixed": fixed_keys,
    "components": components,
    "component hooks": lambda: hook_sections(name for name in hookspecs.HOOKS if name not in hookspecs.LIFECYCLE_HOOKS),
    "lifecycle hooks": lambda: hook_sections(hookspecs.LIFECYCLE_HOOKS),
    "rules": lambda: rule_list(rules(Contract)),
    **{f"rules {kind}": partial(lambda c: rule_list(own_rules(c)), contract) for kind, contract in CONTRACTS.items()},
}
BLOCK = re.compile(r"<!-- begin: ([a-z_ ]+) -->\n(.*?)<!-- end -->", re.DOTALL)


def with_blocks(text: str) -> str:
    """A page with its blocks as the code has them."""
    return BLOCK.sub(lambda m: "\n".join([f"<!-- begin: {m[1]} -->", "", *BLOCKS[m[1]](), "", "<!-- end -->"]), text)


MADE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


def test_every_block_has_its_place() -> None:
    found = [name for page in PAGES for name, _ in BLOCK.findall(page.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(BLOCKS)


@pytest.mark.parametrize("page", MADE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_are_what_the_code_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == with_blocks(text), f"{page} is older than the code: {REWRITE}"


def test_every_component_and_option_is_documented() -> None:
    text, readme = text_of("components.md"), (ROOT / "README.md").read_text(encoding="utf-8")
    for item in default_registry():
        if item.distribution == "ebmkit":
            _, _, section = text.partition(f"\n### {item.name}\n")
            section = section.partition("\n### ")[0]
            assert section, f"components.md lacks {item.kind} {item.name}"
            for key in item.component.Options.model_fields:  # type: ignore[attr-defined]
                assert f"| `{key}` |" in section, f"components.md lacks {item.name}.{key}"
            assert re.search(rf"^\| {item.kind} \|.*`{item.name}`", readme, re.MULTILINE), f"README lacks {item.name}"


def test_every_hook_is_documented() -> None:
    text = text_of("plugins/hooks.md")
    assert len(hookspecs.HOOKS) >= 14
    places = [text.index(f"\n### {hook}\n\n```python\ndef {hook}(") for hook in hookspecs.HOOKS]
    assert places == sorted(places)
    for hook in hookspecs.HOOKS:
        for parameter in inspect.signature(getattr(hookspecs, hook)).parameters:
            assert re.search(rf"\b{parameter}: ", text[text.index(f"\n### {hook}\n") :]), f"{hook}({parameter})"


def test_every_kind_has_its_page_and_its_row() -> None:
    index = text_of("plugins/index.md")
    for kind in KINDS:
        (row,) = re.findall(rf"^\| \[{kind}\]\({kind}\.md\) \|.*$", index, re.MULTILINE)
        interface, page = INTERFACES[kind], text_of(f"plugins/{kind}.md")
        names = [hookspecs.HOOK_OF_KIND[kind], interface.__name__, *getattr(interface, "__abstractmethods__", ())]
        for name in names:
            assert f"`{name}`" in row, f"plugins/index.md, {kind}: {name}"
        # What a component of this kind may write, by hand: each has a heading of its own, or stands in one.
        headings = " ".join(re.findall(r"^## (.+)$", page, re.MULTILINE))
        written = [n for n, v in vars(interface).items() if callable(v) or isinstance(v, property | classmethod)]
        for name in written:
            if not name.startswith("_") and name != "Options":
                assert f"`{name}" in headings, f"plugins/{kind}.md: {name}"
        flags = [n for n in interface.__annotations__ if n not in ("kind", "name")]
        for name in flags:
            assert f"`{name}" in page, f"plugins/{kind}.md: {name}"


def test_every_rule_of_a_contract_is_documented() -> None:
    everyones = text_of("plugins/testing.md")
    for kind, contract in CONTRACTS.items():
        text = text_of(f"plugins/{kind}.md")
        for rule in rules(contract):
            shown = f"- **{rule.removeprefix('test_').replace('_', ' ')}**: "
            assert shown in (everyones if rule in rules(Contract) else text), f"{kind}: {rule}"
        assert f"`{contract.__name__}`" in text


def test_what_a_subclass_of_a_contract_sets_is_documented() -> None:
    text = text_of("plugins/testing.md")
    for contract in (Contract, testing.HooksContract, *CONTRACTS.values()):
        assert f"`{contract.__name__}`" in text
        for name in vars(contract).get("__annotations__", {}):
            assert f"`{name}`" in text, f"{contract.__name__}.{name}"


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
    pages = [page.relative_to(DOCS) for page in PAGES if page.is_relative_to(DOCS)]
    assert {page.parent.as_posix() for page in pages} == {".", "benchmarks", "plugins", "results"}
    for page in pages:
        html = site / (page.with_suffix(".html") if page.stem == "index" else page.with_suffix("") / "index.html")
        assert html.is_file(), html
    assert not (site / "examples").exists()


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
    for page in site.glob("**/*.html"):
        assert loaded.findall(page.read_text(encoding="utf-8")) == [], page
    for style in site.glob("**/*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_reference_shows_the_public_names(site: Path) -> None:
    html = (site / "reference" / "index.html").read_text(encoding="utf-8")
    # A decorator, which hooks.md explains.
    for name in set(ebmkit.__all__) - {"hookimpl"}:
        assert re.search(rf'id="ebmkit\.[a-z_.]*\b{name}"', html), f"reference.md lacks {name}"
    for name in testing.__all__:
        assert re.search(rf'id="ebmkit\.testing\.[a-z_.]*\b{name}"', html), f"reference.md lacks ebmkit.testing.{name}"


# --- Links -----------------------------------------------------------------------------------------------------------


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


def rewrite() -> None:
    """Bring the blocks up to date."""
    for page in MADE:
        text = page.read_text(encoding="utf-8")
        page.write_text(with_blocks(text), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
