"""The pages of the documentation, their code blocks, and the components of the tutorial."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from ebmkit.interfaces import INTERFACES
from ebmkit.plugins import LoadedPlugin, Registered, discover
from ebmkit.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        # The packages of docs/examples are tested as packages.
        *(page for page in DOCS.glob("**/*.md") if "examples" not in page.relative_to(DOCS).parts),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]
)
FENCE = re.compile(r"^(?P<indent> *)```(?P<head>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)


def text_of(page: str) -> str:
    """The text of a page of docs/."""
    return (DOCS / page).read_text(encoding="utf-8")


def fences(language: str) -> Iterator[tuple[str, str, str]]:
    """(page, head, body) of every fenced block in this language."""
    for page in PAGES:
        for match in FENCE.finditer(page.read_text(encoding="utf-8")):
            if match["head"].split(" ")[0] == language:
                yield page.relative_to(ROOT).as_posix(), match["head"], match["body"]


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


@cache
def with_tutorial() -> Registry:
    """What is installed, and the components that the tutorial writes, which commands and recipes of pages may name."""
    written = []
    for page, head, body in fences("python"):
        place = re.search(r'title="(ebmkit-[\w-]+)/ebmkit_(\w+)/(\w+)\.py"', head)
        if page != "docs/plugins/tutorial.md" or place is None or place[3] not in INTERFACES:
            continue
        distribution, plugin, kind = place.groups()
        with TemporaryDirectory() as folder:
            # Not its own name: the packages of docs/examples have it.
            module = module_of(f"tutorial_{plugin}", body, Path(folder))
        own = [item for item in vars(module).values() if getattr(item, "__module__", None) == module.__name__]
        (component,) = (item for item in own if isinstance(item, type) and issubclass(item, INTERFACES[kind]))
        item = Registered(kind, str(component.name), component, plugin, distribution, "0.1.0")  # type: ignore[attr-defined]
        written.append(LoadedPlugin(plugin, module, (item,), distribution, "0.1.0"))
    assert {plugin.plugin for plugin in written} >= {"r1", "underdamped"}
    return Registry([*discover(), *written])
