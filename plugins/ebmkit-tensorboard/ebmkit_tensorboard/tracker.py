"""The `tensorboard` tracker. Neither torch nor tensorboard is imported before a run begins."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from pydantic import Field

from ebmkit import BaseOptions, Context, RunInfo, Tracker, hookimpl

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""Where in the run folder the events are."""

EVALUATIONS = "evaluation"
"""Where in that folder those of evaluations are."""


class TensorBoard(Tracker):
    """Shows a run in TensorBoard: metrics, sample grids, histograms of energies, evaluations and the recipe.

    Everything goes into the folder `tensorboard` of the run folder, evaluations into a folder of their own in it. Needs
    the package tensorboard.
    """

    name = "tensorboard"

    class Options(BaseOptions):
        """Options of `tensorboard`."""

        histograms: bool = Field(
            default=True, description="Histograms of the energies of samples, data and noise, with each sample grid."
        )
        images: int = Field(
            default=64, ge=0, le=1024, description="At most so many samples in the picture; 0 for no pictures."
        )

    options: Options
    writer: SummaryWriter | None = None

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """The package tensorboard is optional."""
        spec = importlib.util.find_spec("tensorboard")
        # Without an origin it is only some folder of that name, such as the one that this tracker makes.
        if spec is None or spec.origin is None:
            return ["use: needs the package tensorboard: pip install 'ebmkit[tensorboard]'"]
        return []

    @hookimpl
    def ebmkit_train_begin(self, run: RunInfo, step: int) -> None:
        """Open the writer, and hide what an earlier process wrote of the steps that are about to come again."""
        # After a rollback there is one already.
        self._close()
        # Not in the folder of evaluations: nobody repeats those.
        self.writer = _open(run.folder / FOLDER, purge_step=step + 1)
        # At the first step that is trained by it: a resumed run's recipe may differ from its earlier one.
        self.writer.add_text("recipe", f"```toml\n{tomli_w.dumps(run.recipe)}```", step + 1)
        self.writer.flush()

    @hookimpl
    def ebmkit_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics as scalars: those of regularizers under their names, all others under `train`."""
        assert self.writer is not None
        for name, value in metrics.items():
            if name != "step":
                self.writer.add_scalar(name if "/" in name else f"train/{name}", value, step)
        # Every time: a run that is killed right after its next checkpoint goes on from there, and needs all before.
        self.writer.flush()

    @hookimpl
    def ebmkit_samples_drawn(self, step: int, images: Tensor, energies: Mapping[str, Tensor]) -> None:
        """The picture of samples, and the histograms of energies."""
        from ebmkit_tensorboard.pictures import grid, histograms

        assert self.writer is not None
        if self.options.images:
            self.writer.add_image("samples", grid(images[: self.options.images]), step)
        if self.options.histograms:
            arrays, edges = histograms(energies)
            for name, values in arrays.items():
                self.writer.add_histogram(f"energy/{name}", values, step, bins=edges)
        self.writer.flush()

    @hookimpl
    def ebmkit_evaluation(self, run: RunInfo, step: int, results: Mapping[str, Any]) -> None:
        """Numbers as scalars."""
        # In a folder of its own: a reader that follows a running training goes on to the newest file of a folder, and
        # would never come back to that of the training.
        with _open(run.folder / FOLDER / EVALUATIONS) as writer:
            for name, value in results.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    writer.add_scalar(f"evaluation/{name}", value, step)

    @hookimpl
    def ebmkit_train_end(self) -> None:
        """Close the writer."""
        self._close()

    @hookimpl
    def ebmkit_exception(self) -> None:
        """Close the writer, if training got as far as to open it."""
        self._close()

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _open(folder: Path, purge_step: int | None = None) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=purge_step)
