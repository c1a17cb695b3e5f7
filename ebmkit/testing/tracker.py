"""The contract of trackers, and of lifecycle hooks at the top level of a plugin."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ebmkit import recipe as recipes
from ebmkit.checkpoint import SHARED, rank_file
from ebmkit.files import write_text
from ebmkit.pictures import save_grid
from ebmkit.plugins import lifecycle_hooks, new_manager
from ebmkit.process_settings import kept
from ebmkit.run_folder import RunFolder, RunInfo
from ebmkit.state_file import save_state
from ebmkit.testing.analytic import photographs
from ebmkit.testing.contract import Contract, ContractBroken, require
from ebmkit.testing.fresh import executed_anew, modules_given_back


class Life:
    """Plays the life of a run to something with lifecycle hooks, in a run folder as training leaves it."""

    def __init__(self, watcher: object, folder: Path, image_shape: tuple[int, int, int]) -> None:
        self.manager, self.image_shape = new_manager(), image_shape
        self.manager.register(watcher)
        self.run = RunInfo(folder, recipes.load("digits").to_table())
        self.drawn: set[str] = set()

    def call(self, hook: str, **arguments: Any) -> None:
        """Call one hook; raises `ContractBroken` that names it."""
        __tracebackhide__ = True
        try:
            with kept() as before:
                getattr(self.manager.hook, hook)(run=self.run, **arguments)
                changed, drawn = before.changed(), before.drawn()
        except ContractBroken:
            raise
        except Exception as error:
            raise ContractBroken(
                f"{hook} raises {type(error).__name__}: {error}; ebmkit would call this plugin no more in the run"
            ) from error
        self.drawn.update(drawn)
        require(
            not changed,
            f"{hook} changes {' and '.join(changed)} of the process and leaves it changed: give back what it sets",
        )

    def begin(self, step: int) -> None:
        """`ebmkit_train_begin`."""
        self.call("ebmkit_train_begin", step=step)

    def steps(self, first: int, last: int) -> None:
        """Steps with all that happens at them: metrics, samples, a checkpoint."""
        for step in range(first, last + 1):
            metrics = {"step": step, "images": 8 * step, "loss": -0.5 * step, "wgan_lp/penalty": 0.25}
            # A regularizer may have nothing to say at first.
            late = {"energy_data": 1.0 / step} if step > 2 else {}
            self.call("ebmkit_step_end", step=step, metrics=metrics | late)
        images = photographs(5, self.image_shape)
        energies = {name: torch.linspace(-1, 1, 5) for name in ("samples", "data", "noise")}
        path = self.run.folder / "samples" / f"step-{last:09d}.png"
        save_grid(path, images)
        self.call("ebmkit_samples_drawn", step=last, images=images, energies=energies, path=path)
        checkpoint = self.run.folder / "checkpoints" / f"step-{last:09d}"
        checkpoint.mkdir(exist_ok=True)
        for file in (self.run.folder / "model.safetensors", checkpoint / SHARED, checkpoint / rank_file(0)):
            save_state(file, {"weights": torch.zeros(3)})
        self.call("ebmkit_checkpoint", step=last, path=checkpoint)

    def evaluate(self, step: int) -> None:
        """`ebmkit_evaluation`."""
        results = {"pixel_frechet_distance": 1.5, "samples": 512, "images": 1797, "seed": 0, "extractor": "pixels"}
        self.call("ebmkit_evaluation", step=step, results=results)

    def end(self, step: int, finished: bool = True) -> None:
        """`ebmkit_train_end`."""
        self.call("ebmkit_train_end", step=step, finished=finished)

    def fail(self, step: int) -> None:
        """`ebmkit_exception`."""
        self.call("ebmkit_exception", step=step, error=KeyboardInterrupt())


class HooksContract:
    """What a run relies on in lifecycle hooks. Subclass it and give `plugin`, the module with the hooks."""

    plugin: ModuleType
    image_shape: tuple[int, int, int] | None = None

    def watcher(self) -> object:
        """A new thing with lifecycle hooks, as each process of a run has it: a module is executed anew."""
        return executed_anew(self.plugin)

    def images_of(self) -> tuple[int, int, int]:
        """`(C, H, W)` of the sample images."""
        return self.image_shape or (3, 16, 16)

    @contextmanager
    def life(self) -> Iterator[Life]:
        """A run folder with a run's files, in an empty working directory; both looked at afterwards."""
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place), modules_given_back(self.plugin):
            run = RunFolder(Path("runs/mine"))
            run.create("seed = 0\n")
            write_text(run.metrics, '{"step": 1}\n')
            ours = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
            yield Life(self.watcher(), run.folder, self.images_of())
            for path, content in ours.items():
                require(
                    path.is_file() and path.read_bytes() == content,
                    f"{path.name}, which belongs to ebmkit, was changed: write files of other names",
                )
            strangers = [path.name for path in Path().iterdir() if path.name != "runs"]
            strangers += [path.name for path in Path("runs").iterdir() if path.name != "mine"]
            require(not strangers, f"{', '.join(strangers)} was written outside of the run folder: use run.folder")

    def again(self, life: Life) -> Life:
        """The same run in a new process."""
        return Life(self.watcher(), life.run.folder, self.images_of())

    def test_implements_a_lifecycle_hook(self) -> None:
        """At least one lifecycle hook is implemented and marked with `@ebmkit.hookimpl`."""
        with modules_given_back(self.plugin):
            implemented = lifecycle_hooks(self.watcher())
        require(implemented, "no lifecycle hook is implemented: mark methods such as ebmkit_step_end with @hookimpl")

    def test_uses_no_global_random_state(self) -> None:
        """What it draws, if anything, does not come from the global random states."""
        with self.life() as life:
            life.begin(0)
            life.steps(1, 2)
            life.end(2)
        require(
            not life.drawn,
            f"a hook draws from {' and '.join(sorted(life.drawn))} global random state, which ebmkit gives back after "
            "each call, so that the same numbers come again: take a generator of your own, such as random.Random()",
        )

    def test_lives_through_a_run(self) -> None:
        """Begin, steps, samples, checkpoint, end: nothing raises, metrics that come late included."""
        with self.life() as life:
            life.begin(0)
            life.steps(1, 4)
            life.end(4)

    def test_goes_on_after_a_kill(self) -> None:
        """A new process begins at an earlier step than was seen, and the steps between come again."""
        with self.life() as life:
            life.begin(0)
            life.steps(1, 4)
            mine = _files(life.run.folder)
            resumed = self.again(life)
            resumed.begin(2)
            lost = mine - _files(life.run.folder)
            require(not lost, f"going on with a run deletes {', '.join(sorted(lost))}: nothing of a user's is lost")
            resumed.steps(3, 4)
            resumed.end(4)

    def test_lives_through_an_exception(self) -> None:
        """A run that fails or is interrupted, before its first step or after, and then goes on."""
        with self.life() as life:
            life.begin(0)
            life.fail(0)
            later = self.again(life)
            later.begin(0)
            later.steps(1, 3)
            later.fail(3)
            last = self.again(life)
            last.begin(3)
            last.steps(4, 4)
            last.end(4, finished=False)

    def test_hears_of_evaluations(self) -> None:
        """`ebmkit evaluate` calls it in a process of its own, without begin or end, before and after training."""
        with self.life() as life:
            life.evaluate(2)
            trained = self.again(life)
            trained.begin(0)
            trained.steps(1, 4)
            trained.end(4)
            self.again(life).evaluate(4)


class TrackerContract(HooksContract, Contract):
    """What a run relies on in a tracker."""

    plugin: ModuleType = None  # type: ignore[assignment]

    def watcher(self) -> object:
        """A new tracker."""
        return self.build()

    def images_of(self) -> tuple[int, int, int]:
        """`(C, H, W)` of the context."""
        return self.context().image_shape


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
