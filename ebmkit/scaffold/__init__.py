"""`ebmkit new-plugin`: a complete plugin project of any kind, with a small component that works, to be changed.

The texts are real files under `templates/`; importing this package imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from ebmkit.errors import BadInput
from ebmkit.interfaces import KINDS
from ebmkit.registry import suggest
from ebmkit.scaffold.names import Names, names_of, require_free
from ebmkit.scaffold.project import project_files
from ebmkit.scaffold.writing import write_project

__all__ = ["Names", "names_of", "new_plugin"]


def new_plugin(kind: str, name: str, out: Path | None = None) -> Path:
    """Write the project of a plugin into a new folder, by default `ebmkit-NAME`, and return that folder.

    Raises `BadInput` for an unknown kind, a name that cannot be used or is taken, and a folder that is not empty.
    """
    if kind not in KINDS:
        raise BadInput(f"unknown kind '{kind}'{suggest(kind, KINDS) or '; use one of ' + ', '.join(KINDS)}")
    names = names_of(name)
    require_free(kind, names)
    folder = Path(names.distribution) if out is None else out
    write_project(folder, project_files(kind, names))
    return folder
