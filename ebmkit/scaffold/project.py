"""The files of a plugin project."""

from __future__ import annotations

import shlex
from pathlib import Path
from string import Template

import ebmkit
from ebmkit.hookspecs import HOOK_OF_KIND
from ebmkit.interfaces import INTERFACES, PLUGIN_API
from ebmkit.scaffold.kinds import KIND_TEXTS
from ebmkit.scaffold.names import Names

TEMPLATES = Path(__file__).parent / "templates"


def project_files(kind: str, names: Names) -> dict[str, str]:
    """Every file of the project by its path in the project's folder."""
    fields = _fields(kind, names)
    templates = {
        "pyproject.toml": "shared/pyproject.toml",
        "README.md": "shared/README.md",
        ".gitignore": "shared/gitignore",
        ".github/workflows/ci.yml": "shared/ci.yml",
        f"{names.module}/__init__.py": "shared/init.py",
        f"{names.module}/{kind}.py": f"{kind}/component.py",
        f"tests/test_{names.component}.py": f"{kind}/test.py",
    }
    if kind == "energy":
        # Apart from the component, because it imports torch.
        templates[f"{names.module}/network.py"] = "energy/network.py"
    files = {path: _filled((TEMPLATES / f"{name}.txt").read_text("utf-8"), fields) for path, name in templates.items()}
    return dict(sorted({**files, f"{names.module}/py.typed": ""}.items()))


def try_command(kind: str, names: Names) -> str:
    """A command that uses the new component: in training the small recipe that comes with ebmkit, or measuring it."""
    if not KIND_TEXTS[kind].recipe:
        return f"ebmkit evaluate runs/digits/model.safetensors --extractor {names.component}"
    change = _filled(KIND_TEXTS[kind].set_value, {"component": names.component})
    return shlex.join(["ebmkit", "train", "digits", "--run-dir", f"runs/{names.plugin}", "--set", change])


def _fields(kind: str, names: Names) -> dict[str, str]:
    """What the placeholders of the templates stand for."""
    texts, own = KIND_TEXTS[kind], vars(names)
    major, minor = map(int, ebmkit.__version__.split(".")[:2])
    return {
        **own,
        "kind": kind,
        "interface": INTERFACES[kind].__name__,
        "contract": f"{INTERFACES[kind].__name__}Contract",
        "hook": HOOK_OF_KIND[kind],
        "plugin_api": str(PLUGIN_API),
        # Interfaces may change with a minor version.
        "requirement": f"ebmkit>={major}.{minor},<{major}.{minor + 1}",
        "summary": texts.summary,
        "use": _use(kind, names),
        "change": _filled(texts.change, own),
    }


def _use(kind: str, names: Names) -> str:
    """How the component is used, as Markdown."""
    recipe, command = _filled(KIND_TEXTS[kind].recipe, vars(names)), f"```bash\n{try_command(kind, names)}\n```"
    if not recipe:
        return f"A model, such as the one of the small recipe that comes with ebmkit, is measured with it:\n\n{command}"
    return f"""In a recipe:

```toml
{recipe}
```

Or, to try it without a recipe of your own, on the small recipe that comes with ebmkit:

{command}"""


def _filled(text: str, fields: dict[str, str]) -> str:
    return Template(text).substitute(fields)
