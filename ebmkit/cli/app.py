"""The application, and how errors reach a person."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import typer

from ebmkit import __version__
from ebmkit.cli import (
    authoring,
    benching,
    checking,
    energies,
    inspecting,
    plotting,
    reporting,
    sampling,
    shards,
    sharing,
    sweeping,
    training,
    tuning,
)
from ebmkit.console import console
from ebmkit.distributed.place import find_place
from ebmkit.errors import ComponentFailed, EbmkitError, RankFailed

TRACEBACK_VARIABLE = "EBMKIT_TRACEBACK"
"""Set to 1, it shows the traceback of every error, those for people included."""

app = typer.Typer(
    name="ebmkit",
    help="Train image energy-based models and draw images from them.\n\nBegin with: ebmkit train digits",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ebmkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


training.add_to(app)
sampling.add_to(app)
sharing.add_to(app)
energies.add_to(app)
benching.add_to(app)
plotting.add_to(app)
reporting.add_to(app)
inspecting.add_to(app)
shards.add_to(app)
checking.add_to(app)
authoring.add_to(app)
sweeping.add_to(app)
tuning.add_to(app)


def main() -> NoReturn:
    """Run the command line; a clear message and an exit code for what users can mend, a traceback only for our bugs."""
    # Set before torch starts its threads: spinning ones slow each other 40 times down where two runs share the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # DeepSpeed's launcher puts it in front of all other arguments; LOCAL_RANK says the same.
    sys.argv[1:] = [word for i, word in enumerate(sys.argv[1:]) if i or not word.startswith("--local_rank=")]
    try:
        app(standalone_mode=True)
    except EbmkitError as error:
        if isinstance(error, RankFailed) and find_place().rank:
            # Rank 0 shows it; a line of every other rank would only bury it.
            sys.exit(error.exit_code)
        target, shown = console(stderr=True), os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0")
        if shown:
            target.print("".join(traceback.format_exception(error)), markup=False)
        target.print(f"error: {error}", markup=False)
        if isinstance(error, ComponentFailed) and error.__cause__ is not None and not shown:
            target.print(f"{TRACEBACK_VARIABLE}=1 shows the traceback, for whoever mends the plugin", markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console(stderr=True).print("stopped")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        sys.stderr.close()
        sys.exit(1)
    sys.exit(0)
