"""`ebmkit export` and `ebmkit push`: a model for others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ebmkit.console import console, counting


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write, or any other name for a folder.")],
    step: Annotated[int | None, typer.Option(min=0, help="The checkpoint's step; the newest by default.")] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="For a folder's model card, such as apache-2.0; none by default.")
    ] = None,
) -> None:
    """Write a model from a run's checkpoint, whichever engine and however many processes trained it.

    A name that ends in .safetensors gets the model file alone. Any other becomes a folder to be shared: the model, its
    recipe, a model card with cost, metrics and limits, and a picture of samples. Both load by `ebmkit sample`.

    Example: ebmkit export runs/digits --out shared/digits
    """
    target = console()
    if out.suffix == ".safetensors":
        from ebmkit.exporting import export_model

        done = export_model(run, out, step)
    else:
        from ebmkit.sharing.folder import export_folder

        with counting(target, "sampling", "gradient evaluations") as progress:
            done = export_folder(
                run, out, step, license_id, progress, partial(console(stderr=True).print, markup=False)
            )
    target.print(f"step {done} of {run}: {out}", markup=False)


def push(
    folder: Annotated[Path, typer.Argument(help="A folder that `ebmkit export` wrote.")],
    repo: Annotated[str, typer.Argument(help="The repository on the Hugging Face hub: owner/name.")],
    public: Annotated[bool, typer.Option("--public", help="If the repository is new, make it public.")] = False,
    revision: Annotated[str | None, typer.Option(help="The branch to push to; main by default.")] = None,
    message: Annotated[str | None, typer.Option(help="The commit's message.")] = None,
) -> None:
    """Upload an exported folder to the Hugging Face hub, in one commit; a new repository is private.

    Needs `pip install 'ebmkit[hub]'`, and a token that may write: `hf auth login`, or HF_TOKEN. Look at README.md and
    recipe.toml in the folder first: they tell of your data.

    Example: ebmkit push shared/digits owner/digits
    """
    from ebmkit.sharing.hub import push as push_folder

    console().print(push_folder(folder, repo, public, revision, message), markup=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(export)
    app.command()(push)
