"""`ebmkit report`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ebmkit.console import console
from ebmkit.errors import BadInput

PORT = 8123


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are overlaid.", metavar="RUN...")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; report.html by default. A report there is made anew.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve it on this machine instead, refreshed while the runs go on.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=f"The port of --watch; {PORT} by default, 0 takes a free one.")
    ] = None,
    max_mb: Annotated[
        int, typer.Option(min=1, max=2000, help="Megabytes of the file at most; some sample grids are left out for it.")
    ] = 20,
) -> None:
    """Show runs in one HTML file: samples through training, curves, pictures, metrics, cost, recipes and versions.

    The file needs no network and no server: it opens from disk, and can be sent to others as it is. With --watch
    nothing is written; the page is served on 127.0.0.1 only, until Ctrl-C.

    Example: ebmkit report runs/digits runs/other --out digits.html
    """
    target = console()
    if not watch:
        if port is not None:
            raise BadInput("--port is for --watch")
        from ebmkit.reporting.writing import write_report

        done = write_report(runs, out or Path("report.html"), max_mb)
        target.print(f"{done.path}: {done.summary}", markup=False)
        return
    if out is not None:
        raise BadInput("--watch serves the report and writes no file; leave out --out or --watch")
    from ebmkit.reporting.serving import Live, Server

    live = Live(runs, max_mb * 1_000_000)
    # Before the address is told: what cannot be shown is said now.
    live.page()
    with Server(live, PORT if port is None else port) as server, suppress(KeyboardInterrupt):
        target.print(f"{server.url} (Ctrl-C ends)", markup=False)
        server.serve_forever()


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(report)
