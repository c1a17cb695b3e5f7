"""`ebmkit check-plugin`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ebmkit.console import console, progress_bar
from ebmkit.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from ebmkit.plugins import BrokenPlugin, LoadedPlugin
    from ebmkit.testing.checking import Finding, Outcome

WORDS: dict[Outcome, str] = {"passed": "kept", "failed": "BROKEN", "skipped": "does not apply"}


def check_plugin(
    name: Annotated[str, typer.Argument(help="A distribution, a plugin of `ebmkit list-plugins`, or a module.")],
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels of the square test images; chosen by default.")
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the test images, with --image-size.")] = 3,
    time_steps: Annotated[int | None, typer.Option(min=1, help="T to test with; chosen by default.")] = None,
    set_values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[KIND.NAME.]OPTION=VALUE",
            help="Test with this value of an option; may be given several times.",
        ),
    ] = None,
    show_rules: Annotated[bool, typer.Option("--rules", help="Print every rule, not only the broken ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a plugin against the contracts of its components' kinds, without writing a test. Exit code 1 on failure.

    Components are tested with their default options; what has no default is taken from the option's examples.

    Example: ebmkit check-plugin ebmkit-langevin --set steps=3 --time-steps 2
    """
    from ebmkit import overrides as overriding
    from ebmkit.plugins import BrokenPlugin
    from ebmkit.testing.checking import check_plugins
    from ebmkit.testing.finding import find_plugins

    plugins = find_plugins(name)
    shape = None if image_size is None else (channels, image_size, image_size)
    broken = [plugin for plugin in plugins if isinstance(plugin, BrokenPlugin)]
    loaded = [plugin for plugin in plugins if not isinstance(plugin, BrokenPlugin)]
    findings = _run(check_plugins(loaded, shape, time_steps, overriding.parse(set_values or [])))
    if as_json:
        rows = [asdict(finding) for finding in findings]
        typer.echo(json.dumps({"broken": [asdict(plugin) for plugin in broken], "findings": rows}, indent=2))
    else:
        _report(console(), broken, loaded, findings, show_rules)
    if not broken and not findings:
        raise BadInput(f"{name}: its plugins have no component and no lifecycle hook, so there is nothing to check")
    if broken or any(finding.outcome == "failed" for finding in findings):
        sys.exit(1)


def _run(checks: Iterable[Finding]) -> list[Finding]:
    findings: list[Finding] = []
    with progress_bar(console(stderr=True)) as progress:
        task = progress.add_task("checking", total=None, unit="rules")
        for finding in checks:
            findings.append(finding)
            progress.update(task, completed=len(findings), description=f"checking {finding.subject}")
    return findings


def _report(
    target: Console,
    broken: list[BrokenPlugin],
    loaded: list[LoadedPlugin],
    findings: list[Finding],
    show_rules: bool,
) -> None:
    from rich.table import Table

    for fault in broken:
        target.print(f"{fault.label} does not load: {fault.reason}", markup=False)
    for plugin in loaded:
        target.print(plugin.label, markup=False, style="bold")
    table = Table("component", *WORDS.values(), box=None, pad_edge=False, header_style="bold")
    for subject in dict.fromkeys(finding.subject for finding in findings):
        counts = Counter(finding.outcome for finding in findings if finding.subject == subject)
        style = "red" if counts["failed"] else ""
        table.add_row(subject, *(str(counts[outcome]) for outcome in WORDS), style=style)
    if findings:
        target.print(table)
    for group in _grouped(findings):
        first = group[0]
        if first.outcome != "failed" and not show_rules:
            continue
        style = {"failed": "bold red", "skipped": "dim"}.get(first.outcome, "")
        what = first.rule if len(group) == 1 else f"{len(group)} rules"
        target.print(f"{first.subject}: {what}: {WORDS[first.outcome]}", markup=False, style=style)
        if first.message:
            target.print(f"    {first.message}", markup=False)
        if len(group) > 1:
            target.print(f"    rules: {'; '.join(finding.rule for finding in group)}", markup=False, style="dim")
    failed = sum(finding.outcome == "failed" for finding in findings)
    if failed:
        target.print(f"{failed} broken rule{'s' if failed != 1 else ''} of {len(findings)}")
    elif not broken:
        target.print(f"all {len(findings)} rules are kept or do not apply")


def _grouped(findings: list[Finding]) -> list[list[Finding]]:
    """Rules of one component that are broken by the same fault stand together, where the first of them stood."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        same = finding.message if finding.outcome == "failed" else ""
        groups.setdefault((finding.subject, same or finding.rule), []).append(finding)
    return list(groups.values())


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("check-plugin")(check_plugin)
