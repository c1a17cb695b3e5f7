"""Training: Algorithm 1, as corrected in `docs/method.md`, in one loop."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ebmkit import calls
from ebmkit import checkpoint as checkpoints
from ebmkit.distributed.world import World, split
from ebmkit.elastic import data_state
from ebmkit.errors import BadInput, TrainingFailed
from ebmkit.files import sync_file
from ebmkit.interfaces import Pairs
from ebmkit.learner import Learner
from ebmkit.lifecycle import Lifecycle
from ebmkit.metering import Meter
from ebmkit.model import save_model
from ebmkit.noise import PerImageNoise
from ebmkit.pictures import save_grid
from ebmkit.pipeline import build_part, frozen, gradient_bound
from ebmkit.precision import autocast
from ebmkit.recipe import Part, Recipe
from ebmkit.registry import default_registry
from ebmkit.run_folder import RunFolder, RunInfo
from ebmkit.sampling import start_noise, sweep
from ebmkit.saving import Saving
from ebmkit.view import View
from ebmkit.watchdog.journal import PENALTY, ROLLBACK, STOP
from ebmkit.watchdog.penalty import add_penalty, penalty_part
from ebmkit.watchdog.recovery import diagnosis, target
from ebmkit.watchdog.watchdog import Alarm, Diverged


@dataclass(frozen=True)
class Outcome:
    """How training ended: `finished`, or stopped by request after a checkpoint at `step`.

    `exit_code` is that of the command line: 0, 130 where Ctrl-C stopped it, 75 where SIGTERM or SIGUSR1 did.
    """

    folder: Path
    step: int
    finished: bool
    exit_code: int = 0

    @property
    def model(self) -> Path:
        """The model file."""
        return RunFolder(self.folder).model


class Trainer(Learner):
    """The loop around the steps: what is logged, drawn, saved and gone back to; all ranks go through it together."""

    def __init__(self, recipe: Recipe, run: RunFolder, device: str, view: View, world: World | None = None) -> None:
        super().__init__(recipe, run, device, view, world)
        recipe = self.recipe
        self.saving = Saving(run, recipe.train.save_errors, view.say)
        info = RunInfo(run.folder, recipe.to_table())
        fatal = recipe.train.hook_errors == "fatal"
        self.hooks = Lifecycle(default_registry(), recipe.trackers, info, view.say, fatal, silent=not self.world.first)
        self.meter: Meter | None = None
        self.due = False
        """A checkpoint is to be written as soon as the watchdog has no doubt."""

    def train(self, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Train to the recipe's last step, or until `stop()`; either way ends with a checkpoint and a model file."""
        self.view.begin(self.step, self.recipe.train.steps)
        # Rank 0's answer: all ranks have to save, or none.
        self.saved_at = self.world.broadcast(self.step if self.run.model.is_file() else -1)
        try:
            # Steps seed torch's global generator for the networks' own randomness; the caller's is given back.
            # And torch's settings.
            with contextlib.ExitStack() as stack, torch.random.fork_rng(self._devices()), self._own_settings():
                # Not this one: a rollback opens another.
                stack.callback(lambda: self.data.close())
                self.hooks.build(self.context)
                self.hooks.call("ebmkit_train_begin", step=self.step)
                self.hooks.end_if_failed()
                # Also after a hook that failed: the run itself is sound.
                self._steps(stop)
                self._save_if_needed()
                self.hooks.end_if_failed()
        except BaseException as error:
            self.hooks.fatal = False
            self.hooks.call("ebmkit_exception", step=self.step, error=error)
            raise
        finished = self.step >= self.recipe.train.steps
        self.hooks.call("ebmkit_train_end", step=self.step, finished=finished)
        self.hooks.end_if_failed()
        return Outcome(self.run.folder, self.step, finished)

    def _steps(self, stop: Callable[[], bool]) -> None:
        options = self.recipe.train
        self.meter = Meter(self.device, self.images_seen, self.run.read_metrics() if self.world.first else ())
        self.model.train()
        while self.step < options.steps and not self.world.agree(stop() or self.hooks.failure is not None):
            self.train_step()
            self.view.step(self.step)
            try:
                self._write()
            except Diverged as diverged:
                self._recover(diverged.alarm)

    def _write(self) -> None:
        """What this step is due: metrics, samples, a checkpoint."""
        options = self.recipe.train
        last = self.step == options.steps
        logged = last or self.step % options.log_every == 0
        if logged:
            self._log()
        if options.sample_every and self.step % options.sample_every == 0:
            self._draw_samples()
        if last or (self.due and logged) or self.step % options.checkpoint_every == 0:
            self._look()
            # What may just be diverging is not what a rollback should find; a few looks later it is known.
            self.due = self.watchdog.doubts and not last
            if not self.due:
                self._save()

    def _look(self) -> None:
        """Before anything is written; raises `Diverged`."""
        alarm = self.watchdog.look(self.step, self.pairs, self.metrics, self.world)
        if alarm is not None:
            raise Diverged(alarm)

    def _recover(self, alarm: Alarm) -> None:
        """Back to a checkpoint, or to the beginning, on all ranks alike; raises `TrainingFailed` where that is over."""
        watchdog, journal, run = self.watchdog, self.watchdog.journal, self.run
        if not watchdog.recovers:
            text = diagnosis(run, alarm, self.step, watchdog)
            journal.add(STOP, self.step, alarm.cause)
            raise TrainingFailed(text)
        saved = self._good_checkpoint()
        to, images = saved.step if saved else 0, self.images_seen
        if self.world.first:
            # Before it is written that this happened: a run that is killed in between resumes from `to` all the same.
            self.saving.done("the list of checkpoints", lambda: run.discard_checkpoints_after(to), needed=True)
        more: dict[str, Any] = {"to": to}
        action, part = ROLLBACK, self._missing_penalty(alarm)
        if part is not None:
            action, more["use"] = PENALTY, part.name
            self.recipe = add_penalty(self.recipe)
            self.regularizers.append(build_part(part, self.context))
            watchdog.bound = gradient_bound(self.recipe)
        factor = watchdog.learning_rate_factor * (1.0 if part else watchdog.options.learning_rate_factor)
        journal.add(action, self.step, alarm.cause, **more, learning_rate_factor=factor)
        if saved is None:
            self._begin_again()
        else:
            self._restore(saved)
            self._restore_engine(saved)
        # As a run that is killed now would resume.
        self.data.go_to(None if saved is None else data_state(saved, self.world))
        if self.meter is not None:
            self.meter.rewind(images - self.images_seen)
        self.saved_at, self.due = self.step if saved else -1, False
        if self.world.first:
            self.saving.done("metrics.jsonl", lambda: run.rewind_metrics(self.step), needed=True)
            if saved is not None:
                model = self.averaged, self.recipe, self.images_seen, self.step
                self.saving.done("the model file", lambda: save_model(run.model, *model))
        self.world.barrier()
        self.hooks.call("ebmkit_train_begin", step=self.step)

    def _missing_penalty(self, alarm: Alarm) -> Part | None:
        """What the recipe lacks where its energies have no bound and run away, and it can be had."""
        return penalty_part(self.recipe)[0] if self.watchdog.needs_penalty(alarm) else None

    def _good_checkpoint(self) -> checkpoints.Checkpoint | None:
        """Where to go back to: the checkpoint that `target` names, or an older one where that is damaged."""
        run, damaged = self.run, set[int]()
        while True:
            to = self.world.broadcast(target(run, self.watchdog.journal.events, damaged))
            if to is None:
                return None
            found, reason = None, ""
            try:
                found = checkpoints.load(run, to)
                if found is not None and found.ranks == self.world.size:
                    found.local(self.world.rank)
            except BadInput as error:
                found, reason = None, str(error)
            reasons = [text for text in self.world.all_gather(reason) if text]
            if not reasons:
                return found
            self.view.say(f"warning: {reasons[0]}; an older checkpoint is taken")
            damaged.add(to)

    def _log(self) -> None:
        self._look()
        assert self.meter is not None
        row: dict[str, float] = {"step": self.step, "images": self.images_seen}
        means = self.world.mean({name: float(value) for name, value in self.metrics.items()})
        # JSON has finite numbers only; others are those of a step whose update was skipped.
        row |= {name: value for name, value in means.items() if math.isfinite(value)}
        row |= {"step": self.step, "images": self.images_seen}
        row |= self.meter.read(self.images_seen)
        row |= self.watchdog.actions
        skipped = self.world.all_gather(self.data.skipped)
        row["skipped_images"] = skipped[0] if self.data.whole else sum(skipped)
        if not self.world.first:
            return
        self.saving.done("metrics.jsonl", lambda: self.run.append_metrics(row))
        self.view.metrics(row)
        self.hooks.call("ebmkit_step_end", step=self.step, metrics=row)

    def _draw_samples(self) -> None:
        self._look()
        energy, mine = self.averaged, split(range(self.recipe.train.sample_count), self.world)
        noise = PerImageNoise(self.recipe.seed, mine, self.device)
        start = start_noise(noise, len(mine), self.recipe.data.shape, self.device)
        x = start
        if mine:
            with frozen(energy), autocast(self.device, self.parts.precision):
                x = sweep(energy, self.sampler, start, self.recipe.time_steps, noise)
        parts = self.world.gather((x.cpu(), start.cpu()))
        if parts is None:
            return
        x, start = (joined([part[i] for part in parts]) for i in range(2))
        path = self.run.samples / f"step-{self.step:09d}.png"
        if not self.saving.done("a sample grid", lambda: save_grid(path, x)):
            return
        if self.hooks.listens("ebmkit_samples_drawn"):
            batches = {"samples": x, "data": cast(Pairs, self.pairs).x_pos[: len(x)], "noise": start}
            with frozen(energy), torch.no_grad():
                energies = {
                    name: energy(
                        images.to(self.device), torch.ones(len(images), dtype=torch.int64, device=self.device)
                    ).cpu()
                    for name, images in batches.items()
                }
            self.hooks.call("ebmkit_samples_drawn", step=self.step, images=x, energies=energies, path=path)

    def _save(self, needed: bool = False) -> None:
        parts: dict[str, checkpoints.Stateful] = {
            "model": self.model,
            "ema": self.ema,
            "engine": self.engine,
            "watchdog": self.watchdog,
        }
        # On every rank: where the optimizer's state is split, all of them have to give their part.
        shared = {name: part.state_dict() for name, part in parts.items()}
        local = {"buffer": calls.Saved(self.buffer).state_dict(), "data": self.data.state_dict()}
        keep, run, world = self.recipe.train.keep_checkpoints, self.run, self.world

        def write_model() -> None:
            if run.metrics.is_file():
                # A checkpoint promises the lines up to its step, even after a power cut.
                sync_file(run.metrics)
            save_model(run.model, self.averaged, self.recipe, self.images_seen, self.step)

        def write() -> None:
            save_checkpoint = checkpoints.save_checkpoint
            save_checkpoint(run, self.step, self.images_seen, shared, local, keep, world, write_model)

        needed = needed or self.step >= self.recipe.train.steps
        if self.saving.done(f"the checkpoint of step {self.step}", write, needed):
            self.saved_at = self.step
            self.hooks.call("ebmkit_checkpoint", step=self.step, path=run.checkpoint(self.step))

    def _save_if_needed(self) -> None:
        if self.saved_at == self.step:
            return
        try:
            self._look()
        except Diverged as diverged:
            self._recover(diverged.alarm)
        # Back at a checkpoint there is nothing to save.
        if self.saved_at != self.step:
            self._save(needed=True)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """What `split` dealt out to the ranks, in its order again."""
    whole = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole
