"""Training: Algorithm 1, as corrected in `docs/method.md`, in one loop."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ebmkit import calls
from ebmkit import checkpoint as checkpoints
from ebmkit.averaging import MovingAverage
from ebmkit.blame import wrong
from ebmkit.chains import BufferChains
from ebmkit.data import ImageSource, open_images
from ebmkit.distributed.world import Solo, World, split
from ebmkit.elastic import buffer_state, data_state
from ebmkit.energy_model import EnergyModel
from ebmkit.engine.building import build_engine
from ebmkit.engine.interface import Engine
from ebmkit.engine.settings import is_plain
from ebmkit.errors import BadInput, TrainingFailed
from ebmkit.fast.energy import FastEnergy
from ebmkit.fast.parts import Parts, choose
from ebmkit.fast.preparing import forward_flops, prepare
from ebmkit.files import sync_file
from ebmkit.interfaces import Buffer, Draw, Objective, Pairs, Sampler
from ebmkit.lifecycle import Lifecycle
from ebmkit.metering import Meter
from ebmkit.model import save_model
from ebmkit.noise import PerImageNoise, generator, stream_seed
from ebmkit.pictures import save_grid
from ebmkit.pipeline import build_energy, build_part, build_regularizers, frozen, gradient_bound
from ebmkit.precision import autocast, tf32
from ebmkit.recipe import Recipe
from ebmkit.registry import default_registry
from ebmkit.run_folder import RunFolder, RunInfo
from ebmkit.sampling import from_uint8, start_noise, sweep
from ebmkit.saving import Saving
from ebmkit.sections import Sections, Unwatched
from ebmkit.view import View
from ebmkit.watchdog.guard import Guard
from ebmkit.watchdog.journal import PENALTY, ROLLBACK, STOP, Journal, read_journal
from ebmkit.watchdog.penalty import add_penalty
from ebmkit.watchdog.recovery import diagnosis, target
from ebmkit.watchdog.watchdog import Alarm, Diverged, Watchdog


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


class Trainer:
    """One run: its parts, its place in training, and the loop, which all processes of a job go through together."""

    def __init__(self, recipe: Recipe, run: RunFolder, device: str, view: View, world: World | None = None) -> None:
        self.run, self.device, self.view = run, device, view
        self.world = world or Solo()
        journal = Journal(run.folder, self.world.broadcast(read_journal(run.folder)), self.world.first, view.say)
        self.recipe = recipe = add_penalty(recipe) if journal.count(PENALTY) else recipe
        self.context = context = recipe.context(device, self.world.rank, self.world.size)
        # Rank 0 says which: a shared file system may not show the newest one everywhere.
        saved = checkpoints.load(run, self.world.broadcast(checkpoints.newest(run)))
        guard, weights = Guard(recipe.watchdog, device), list[Tensor]()
        self.watchdog = Watchdog(recipe.watchdog, guard, journal, recipe.time_steps, gradient_bound(recipe), weights)
        self.regularizers = build_regularizers(recipe, context)
        self.model = build_energy(self._attempt(), context, self.regularizers)
        weights.extend(self.model.parameters())
        self.sampler: Sampler = build_part(recipe.sampler, context)
        self.parts = prepare(self.model, self._choose(), device, view.say)
        self.energy = FastEnergy(self.model, self.parts)
        self.ema = MovingAverage(self.model, recipe.train.ema_decay)
        self.buffer: Buffer = build_part(
            recipe.buffer, self._attempt().context(device, context.rank, context.world_size)
        )
        self.objective: Objective = build_part(recipe.objective, context)
        self.step = self.images_seen = 0
        self.sections: Sections = Unwatched()
        if saved is not None:
            self._restore(saved)
        if self.parts.compile:
            shape = (self.micro_batch, *recipe.data.shape)
            with self._own_settings():
                compiled = self.energy.compile(shape, device, view.say, self.parts.cuda_graphs)
            self.parts = replace(self.parts, compile=compiled)
        # With the weights in place: DeepSpeed copies them.
        self.engine: Engine = build_engine(recipe, self.model, self.world, device, self.parts.fused_optimizer)
        if saved is not None:
            self._restore_engine(saved)
        if self.world.first:
            run.rewind_metrics(self.step)
        self.data = self._open_data(saved)
        self.saving = Saving(run, recipe.train.save_errors, view.say)
        info = RunInfo(run.folder, recipe.to_table())
        fatal = recipe.train.hook_errors == "fatal"
        self.hooks = Lifecycle(default_registry(), recipe.trackers, info, view.say, fatal, silent=not self.world.first)
        self.pairs: Pairs | None = None
        """What the last micro-batch compared."""
        self.metrics: Mapping[str, Tensor] = {}
        """Those of the last step."""
        self.meter: Meter | None = None
        self.due = False
        """A checkpoint is to be written as soon as the watchdog has no doubt."""

    @property
    def micro_batch(self) -> int:
        """Real images in one forward of this rank."""
        return self.recipe.train.batch_size // (self.world.size * self.recipe.engine.accumulate)

    def _open_data(self, saved: checkpoints.Checkpoint | None) -> ImageSource:
        state = None if saved is None else data_state(saved, self.world)
        data, view = self.recipe.data, self.view
        return open_images(data, self.context, self.micro_batch, state=state, warn=view.say, progress=view.loading)

    def _choose(self) -> Parts:
        train, flops = self.recipe.train, None
        if train.fast == "auto" and self.device.startswith("cuda"):
            # In evaluations: a Langevin step is 2, the objective 6, a penalty 6 (docs: benchmarks).
            evaluations = train.steps * train.batch_size / self.world.size * (2 * self.sampler.steps + 12)
            flops = evaluations * forward_flops(self.model, self.recipe.data.shape, self.device)
        parts = choose(train.fast, train.precision, self.recipe.fast, self.device, flops)
        # DeepSpeed takes weights in torch's usual order of memory only.
        return parts if is_plain(self.recipe.engine, self.world.size) else replace(parts, channels_last=False)

    @property
    def averaged(self) -> EnergyModel:
        """The network with the moving average of the weights, which samples are drawn with."""
        return cast(EnergyModel, self.ema.module)

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

    def _own_settings(self) -> contextlib.AbstractContextManager[None]:
        return tf32(self.device, self.parts.tf32)

    def _devices(self) -> list[str]:
        return [self.device] if self.device.startswith("cuda") else []

    def train_step(self) -> dict[str, Tensor]:
        """One step of Algorithm 1; returns its metrics as detached scalar tensors, the means of its micro-batches."""
        recipe, count = self.recipe, self.recipe.engine.accumulate
        learning_rate = recipe.optimizer.learning_rate(self.step / recipe.train.steps)
        learning_rate *= self.watchdog.learning_rate_factor
        # Also for whoever takes single steps.
        with self._own_settings():
            rows = [self._micro_batch(self.step * count + number) for number in range(count)]
            guard = self.watchdog.guard
            with self.sections.of("optimizer"):
                gradient_norm = self.engine.step(learning_rate, guard.judge if self.watchdog.acts else None)
                self.ema.update_parameters(self.model)
            if not self.watchdog.acts:
                guard.judge(gradient_norm, finite_only=True)
            guard.saw_loss(torch.stack([row["loss"] for row in rows]))
        self.step += 1
        self.images_seen += recipe.train.batch_size
        metrics = rows[0] if count == 1 else _means(rows)
        metrics["gradient_norm"] = gradient_norm
        metrics["learning_rate"] = torch.tensor(learning_rate, dtype=torch.float64)
        self.metrics = metrics
        return metrics

    def random(self, index: int) -> torch.Generator:
        """The random numbers of this rank's micro-batch `index`, counted from the beginning of training."""
        return self._random("train", index)

    def _random(self, stream: str, index: int) -> torch.Generator:
        return generator(self.device, self._attempt().seed, stream, self.world.rank, index=index)

    def _attempt(self) -> Recipe:
        """The recipe with the seed of this attempt: another one after each rollback."""
        rollbacks, seed = self.watchdog.rollbacks, self.recipe.seed
        return replace(self.recipe, seed=stream_seed(seed, "rollback", index=rollbacks)) if rollbacks else self.recipe

    def _micro_batch(self, index: int) -> dict[str, Tensor]:
        recipe = self.recipe
        # Every random number derives from (seed, rank, step): a resumed run needs no generator's state.
        random = self.random(index)
        torch.manual_seed(stream_seed(self._attempt().seed, "dropout", self.world.rank, index=index))
        with self.sections.of("data"):
            batch = self.data.next()
        x_pos = from_uint8(batch.images)
        if recipe.data.horizontal_flip:
            mirrored = torch.rand(len(x_pos), generator=random, device=self.device) < 0.5
            x_pos = torch.where(mirrored.view(-1, 1, 1, 1), x_pos.flip(-1), x_pos)

        chains = BufferChains(self.energy, self.sampler, self.buffer, random, self._restarts(index))
        with (
            self.sections.of("langevin"),
            frozen(self.model),
            torch.no_grad(),
            autocast(self.device, self.parts.precision),
        ):
            pairs = calls.pairs(self.objective, self.energy, x_pos, batch.labels, chains, random)
        loss, metrics = self._loss(pairs, random)
        with self.sections.of("backward"):
            self.engine.backward(loss)
        if pairs.slots is not None:
            calls.store(self.buffer, pairs.slots, pairs.x_neg)
            self.watchdog.guard.saw_chains(pairs.x_neg)
        self.pairs = pairs
        return metrics

    def _restarts(self, index: int) -> Callable[[Draw], Draw]:
        if not self.watchdog.acts:
            return lambda drawn: drawn
        guard = self.watchdog.guard
        return lambda drawn: guard.restart(self.buffer, drawn, self._random("restart", index))

    def _loss(self, pairs: Pairs, random: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        with self.sections.of("objective"), autocast(self.device, self.parts.precision):
            loss, named = calls.loss(self.objective, pairs)
        # The penalties stay in float32: under autocast their gradients by the parameters are wrong by some percent.
        metrics = dict(named)
        for number, regularizer in enumerate(self.regularizers):
            with self.sections.of("penalty"):
                term = calls.penalty(regularizer, pairs, random)
            if term is not None:
                loss = loss + term.value
                alone = sum(other.name == regularizer.name for other in self.regularizers) == 1
                source = regularizer.name if alone else f"{regularizer.name}.{number}"
                metrics |= {f"{source}/{name}": value for name, value in term.metrics.items()}
        if not loss.requires_grad:
            raise wrong(self.objective, "its loss() does not depend on the network's parameters: nothing to train")
        # The loss comes first in every row, and no component's metric of that name takes its place.
        return loss, {"loss": loss.detach()} | metrics | {"loss": loss.detach()}

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
        if watchdog.needs_penalty(alarm):
            self.recipe = add_penalty(self.recipe)
            self.regularizers.append(build_part(self.recipe.regularizers[-1], self.context))
            watchdog.bound = gradient_bound(self.recipe)
            journal.add(PENALTY, self.step, alarm.cause, use=self.recipe.regularizers[-1].name)
        to = self.world.broadcast(target(run, journal.events))
        if self.world.first:
            # Before it is written that this happened: a run that is killed in between resumes from `to` all the same.
            run.discard_checkpoints_after(to or 0)
        factor = watchdog.factor_after(watchdog.rollbacks + 1)
        journal.add(ROLLBACK, self.step, alarm.cause, to=to or 0, learning_rate_factor=factor)
        images = self.images_seen
        saved = checkpoints.load(run, to)
        if saved is None:
            self._begin_again()
        else:
            self._restore(saved)
            self._restore_engine(saved)
        # From the start of the pass, or from the checkpoint: as a run that is killed now would resume.
        self.data.close()
        self.data = self._open_data(saved)
        if self.meter is not None:
            self.meter.rewind(images - self.images_seen)
        self.saved_at, self.due = self.step if saved else -1, False
        if self.world.first:
            run.rewind_metrics(self.step)
            if run.model.is_file():
                model = self.averaged, self.recipe, self.images_seen, self.step
                self.saving.done("the model file", lambda: save_model(run.model, *model))
        self.world.barrier()
        self.hooks.call("ebmkit_train_begin", step=self.step)

    def _begin_again(self) -> None:
        """New weights, a new buffer, and an optimizer that has seen nothing."""
        recipe = self._attempt()
        context = recipe.context(self.device, self.world.rank, self.world.size)
        model = build_energy(recipe, context, build_regularizers(recipe, context))
        self.model.load_state_dict(model.state_dict())
        self.ema.load_state_dict(MovingAverage(model, recipe.train.ema_decay).state_dict())
        self.buffer.load_state_dict(build_part(recipe.buffer, context).state_dict())
        self.engine.load_state_dict({**self.engine.state_dict(), "state": {}})
        self.watchdog.forget()
        self.step = self.images_seen = 0

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

    def _restore(self, saved: checkpoints.Checkpoint) -> None:
        with self._fitting():
            self.model.load_state_dict(saved.shared["model"])
            self.ema.load_state_dict(saved.shared["ema"])
            self.buffer.load_state_dict(buffer_state(saved, type(self.buffer), self.context))
        # Older checkpoints have no such state.
        if "watchdog" in saved.shared:
            self.watchdog.load_state_dict(saved.shared["watchdog"])
        else:
            self.watchdog.forget()
        self.watchdog.looked_at = None
        self.step, self.images_seen = saved.step, saved.images_seen

    def _restore_engine(self, saved: checkpoints.Checkpoint) -> None:
        with self._fitting():
            self.engine.load_state_dict(saved.shared["engine"])

    @contextlib.contextmanager
    def _fitting(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(f"{self.run.folder}: its checkpoint does not fit the recipe: {reason}") from error


def _means(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each metric over the micro-batches that have it."""
    found = {name: [torch.as_tensor(row[name]) for row in rows if name in row] for row in rows for name in row}
    return {name: torch.stack(values).mean() for name, values in found.items()}


def joined(parts: Sequence[Tensor]) -> Tensor:
    """What `split` dealt out to the ranks, in its order again."""
    whole = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole
