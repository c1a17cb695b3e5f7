"""`ebmkit new-plugin`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ebmkit.console import console
from ebmkit.kinds import KINDS


def new_plugin(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="Its name, as `use` in a recipe: r1, my-sampler, my_sampler.")],
    out: Annotated[Path | None, typer.Option(help="The new project's folder; ebmkit-NAME by default.")] = None,
) -> None:
    """Write a plugin project: a small component that works, its tests, a README and a CI workflow, all to be changed.

    Never writes over anything.

    Example: ebmkit new-plugin regularizer r1
    """
    from ebmkit import scaffold
    from ebmkit.scaffold.project import project_files, try_command

    here = Path.cwd()
    folder = scaffold.new_plugin(kind, name, out)
    names = scaffold.names_of(name)
    # An empty folder gives way to the project; a shell that stands in it has to go in anew.
    place = here if os.path.realpath(here) == os.path.realpath(here / folder) else folder
    target = console()
    target.print(f"{folder}: the {kind} '{names.component}', as distribution {names.distribution}", markup=False)
    for path in project_files(kind, names):
        target.print(f"  {path}", markup=False)
    commands = [
        f"cd {shlex.quote(str(place))}",
        "pip install -e '.[test]'",
        "pytest",
        "ebmkit list-plugins",
        f"ebmkit check-plugin {names.distribution}",
        try_command(kind, names),
    ]
    target.print("next:\n" + "\n".join(f"  {command}" for command in commands), markup=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("new-plugin")(new_plugin)
