"""`ebmkit check`, `list-plugins`, `describe` and `schema`: all without torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ebmkit.cli.training import SetValues, collect
from ebmkit.console import console, print_table
from ebmkit.errors import BadInput
from ebmkit.kinds import KINDS

if TYPE_CHECKING:
    from ebmkit.description import OptionDescription

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def check(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    extra: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="KEY=VALUE")] = None,
    set_values: SetValues = None,
    show: Annotated[bool, typer.Option("--show", help="Print the resolved recipe, every default written out.")] = False,
) -> None:
    """Check a recipe: every key, option and plugin, and whether its sweep can reach the data. Needs no GPU and no data.

    Example: ebmkit check recipes/cifar10_unet.toml --set sampler.steps=5
    """
    from ebmkit import api
    from ebmkit.pipeline import reach_ratio

    target = console()
    warnings: list[str] = []
    bound = api.check(recipe, collect(set_values, extra), warnings.append)
    if show:
        typer.echo(bound.to_toml(), nl=False)
        target = console(stderr=True)
    for warning in warnings:
        console(stderr=True).print(f"warning: {warning}", markup=False)
    ratio = reach_ratio(bound)
    reach = "" if ratio is None else f"; a sweep covers {ratio:.2f} times the way to the data"
    target.print(f"{recipe}: ok{reach}", markup=False)


def list_plugins(as_json: AsJson = False) -> None:
    """List every installed component with the distribution that it came from, and the plugins that did not load.

    Example: ebmkit list-plugins --json
    """
    from ebmkit.plugins import DISABLED, lifecycle_hooks
    from ebmkit.registry import default_registry

    registry = default_registry()
    watching = [(plugin, hooks) for plugin in registry.loaded if (hooks := lifecycle_hooks(plugin.module))]
    if as_json:
        keys = ("kind", "name", "plugin", "distribution", "version")
        rows = [{key: getattr(item, key) for key in keys} for item in registry]
        watchers = [
            {"plugin": item.plugin, "distribution": item.distribution, "version": item.version, "hooks": hooks}
            for item, hooks in watching
        ]
        told = {
            "hooks": watchers,
            "broken": [asdict(item) for item in registry.broken],
            "ambiguous": registry.ambiguous,
        }
        typer.echo(json.dumps({"components": rows, **told}, indent=2))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("kind", "name", "plugin", "distribution", "version", box=None, pad_edge=False, header_style="bold")
    for item in registry:
        table.add_row(item.kind, item.name, *map(escape, (item.plugin, item.distribution, item.version)))
    for plugin, hooks in watching:
        source = map(escape, (plugin.plugin, plugin.distribution, plugin.version))
        table.add_row("hooks", ", ".join(hooks), *source)
    print_table(console(), table)
    for message in registry.ambiguous:
        console(stderr=True).print(message, markup=False)
    for fault in registry.broken:
        what = fault.told if fault.reason == DISABLED else f"not loaded: {fault.told}"
        console(stderr=True).print(what, markup=False)


def describe(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="The component's name, as `use` in a recipe.")],
    as_json: AsJson = False,
) -> None:
    """Describe a component: what it does, its options with types, defaults and bounds, and where it comes from.

    Example: ebmkit describe sampler langevin
    """
    from ebmkit import api
    from ebmkit.registry import suggest

    if kind not in KINDS:
        raise BadInput(f"unknown kind '{kind}'{suggest(kind, KINDS) or '; use one of ' + ', '.join(KINDS)}")
    description = api.describe(kind, name)
    if as_json:
        typer.echo(json.dumps(asdict(description), indent=2))
        return
    target = console()
    target.print(f"{kind} {name}  ({description.distribution} {description.version})\n", markup=False, style="bold")
    target.print(description.summary + "\n", markup=False)
    if not description.options:
        target.print("It has no options.")
    for option in description.options:
        target.print(_heading(option), markup=False, style="bold")
        target.print(f"    {option.description}", markup=False)


def _heading(option: OptionDescription) -> str:
    default = "required" if option.required else f"default {_toml(option.default)}"
    return "  ".join(filter(None, [option.name, option.type, default, option.bounds]))


def _toml(value: object) -> str:
    """A default as a recipe writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value) if isinstance(value, str) else str(value)


def schema() -> None:
    """Print the JSON Schema of a recipe, for completion and checks in editors.

    Example: ebmkit schema > recipe.schema.json
    """
    from ebmkit import api

    def warn(message: str) -> None:
        console(stderr=True).print(f"warning: {message}", markup=False)

    typer.echo(json.dumps(api.schema(warn), indent=2))


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(check)
    app.command("list-plugins")(list_plugins)
    app.command()(describe)
    app.command()(schema)
