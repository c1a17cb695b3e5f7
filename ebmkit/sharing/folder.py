"""A run as a folder to be shared: model, recipe, card and a picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ebmkit.errors import BadInput
from ebmkit.exporting import averaged_model
from ebmkit.files import folder_written_whole
from ebmkit.model import Progress, load_model, save_model
from ebmkit.pictures import save_grid
from ebmkit.run_folder import RunFolder
from ebmkit.sharing import CARD, MODEL, RECIPE, SAMPLES
from ebmkit.sharing.card import Facts, write_card
from ebmkit.sharing.public import published
from ebmkit.sharing.records import evaluations_of, training_seconds

SEED = 0
"""Of the samples that are drawn for a card."""


def export_folder(
    folder: str | Path,
    out: str | Path,
    step: int | None = None,
    license_id: str | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> int:
    """Write the folder `out` for the checkpoint of `step` of a run (by default the newest); returns the step.

    It is complete, or not there at all. Raises `BadInput` where there is no such checkpoint, and where `out` exists.
    """
    run, out = RunFolder(Path(folder)), Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"{out}: already exists and is never overwritten; choose another name by --out")
    averaged = averaged_model(run, step)
    recipe = published(averaged.recipe)
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with folder_written_whole(out.absolute()) as temporary:
            save_model(temporary / MODEL, averaged.energy, recipe, averaged.images_seen, averaged.step)
            (temporary / RECIPE).write_text(recipe.to_toml(), encoding="utf-8")
            model = load_model(temporary / MODEL, say=say)
            grid = run.samples / f"step-{averaged.step:09d}.png"
            if grid.is_file():
                shutil.copyfile(grid, temporary / SAMPLES)
                samples = f"Samples of step {averaged.step:,}, not chosen, as training drew them."
            else:
                count = recipe.train.sample_count
                save_grid(temporary / SAMPLES, model.sample(count, SEED, progress=progress))
                samples = f"Samples, not chosen: `model.sample({count}, seed={SEED})`."
            facts = Facts(
                recipe,
                model.metadata,
                sum(parameter.numel() for parameter in model.energy.parameters()),
                int(recipe.sampler.build(recipe.context()).steps),
                training_seconds(run, averaged.step),
                evaluations_of(run, averaged.step),
                samples,
                license_id,
            )
            (temporary / CARD).write_text(write_card(facts), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror}") from error
    return averaged.step
