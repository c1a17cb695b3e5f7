"""`[evaluate]` of a sweep file: options of the command `ebmkit evaluate`, by their names."""

from __future__ import annotations

from typing import Any

from ebmkit.binder import show
from ebmkit.errors import Problem, RecipeError
from ebmkit.registry import suggest
from ebmkit.sweeps.file import Sweep

OWN = ("json", "gpus", "processes")
"""Options that are the sweep's affair."""


def evaluate_words(sweep: Sweep) -> list[str]:
    """The options as command-line words: `{"batch_size": 64}` as `--batch-size 64`; raises `RecipeError`.

    They are those of the command itself, so that a sweep can measure whatever the command can.
    """
    import typer

    from ebmkit.cli.app import app

    group: Any = typer.main.get_command(app)
    command: Any = group.commands["evaluate"]
    flags = {
        flag.removeprefix("--").replace("-", "_"): parameter
        for parameter in command.params
        for flag in getattr(parameter, "opts", ())
        if flag.startswith("--") and flag.removeprefix("--") not in OWN
    }
    problems, words = [], []
    for key, value in sweep.evaluate.items():
        if key not in flags or key == "help":
            problems.append(Problem(f"evaluate.{key}", "unknown option of `ebmkit evaluate`" + suggest(key, flags)))
        elif flags[key].is_flag:
            if not isinstance(value, bool):
                problems.append(Problem(f"evaluate.{key}", f"must be true or false, not {show(value)}"))
            words += [f"--{key.replace('_', '-')}"] if value is True else []
        else:
            items = list(value) if isinstance(value, list | tuple) else [value]
            if not flags[key].multiple:
                # As `--metrics` has its names.
                items = [",".join(map(str, items))]
            for item in items:
                words += [f"--{key.replace('_', '-')}", str(item)]
    if not problems:
        try:
            command.make_context("evaluate", ["MODEL", *words])
        except Exception as error:
            # typer has its own copy of click's exceptions, or click's, by its version: known by their message.
            if not hasattr(error, "format_message"):
                raise
            problems.append(Problem("evaluate", error.format_message()))
    if problems:
        raise RecipeError(sweep.source, problems)
    return words
