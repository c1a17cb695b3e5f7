"""Training: Algorithm 1, as corrected in `docs/method.md`, in one loop."""

from __future__ import annotations

import contextlib
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
from ebmkit.interfaces import Buffer, Objective, Pairs, Sampler
from ebmkit.lifecycle import Lifecycle
from ebmkit.metering import Meter
from ebmkit.model import save_model
from ebmkit.noise import PerImageNoise, generator, stream_seed
from ebmkit.pictures import save_grid
from ebmkit.pipeline import build_energy, build_part, build_regularizers, frozen
from ebmkit.precision import autocast, tf32
from ebmkit.recipe import Recipe
from ebmkit.registry import default_registry
from ebmkit.run_folder import RunFolder, RunInfo
from ebmkit.sampling import from_uint8, start_noise, sweep
from ebmkit.saving import Saving
from ebmkit.sections import Sections, Unwatched
from ebmkit.view import View


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
        self.recipe, self.run, self.device, self.view = recipe, run, device, view
        self.world = world or Solo()
        self.context = context = recipe.context(device, self.world.rank, self.world.size)
        # Rank 0 says which: a shared file system may not show the newest one everywhere.
        saved = checkpoints.load(run, self.world.broadcast(checkpoints.newest(run)))
        self.regularizers = build_regularizers(recipe, context)
        self.model = build_energy(recipe, context, self.regularizers)
        self.sampler: Sampler = build_part(recipe.sampler, context)
        self.parts = prepare(self.model, self._choose(), device, view.say)
        self.energy = FastEnergy(self.model, self.parts)
        self.ema = MovingAverage(self.model, recipe.train.ema_decay)
        self.buffer: Buffer = build_part(recipe.buffer, context)
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
        self.data: ImageSource = open_images(
            recipe.data,
            context,
            self.micro_batch,
            state=None if saved is None else data_state(saved, self.world),
            warn=view.say,
            progress=view.loading,
        )
        self.saving = Saving(run, recipe.train.save_errors, view.say)
        info = RunInfo(run.folder, recipe.to_table())
        fatal = recipe.train.hook_errors == "fatal"
        self.hooks = Lifecycle(default_registry(), recipe.trackers, info, view.say, fatal, silent=not self.world.first)
        self.x_pos: Tensor | None = None
        # Looked at before anything is written, and not at every step: reading it would wait for the device.
        self.all_finite = torch.ones((), dtype=torch.bool, device=device)

    @property
    def micro_batch(self) -> int:
        """Real images in one forward of this rank."""
        return self.recipe.train.batch_size // (self.world.size * self.recipe.engine.accumulate)

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
            with contextlib.closing(self.data), torch.random.fork_rng(self._devices()), self._own_settings():
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
        meter = Meter(self.device, self.images_seen, self.run.read_metrics() if self.world.first else ())
        self.model.train()
        while self.step < options.steps and not self.world.agree(stop() or self.hooks.failure is not None):
            metrics = self.train_step()
            self.view.step(self.step)
            last = self.step == options.steps
            if last or self.step % options.log_every == 0:
                self._log(metrics, meter)
            if options.sample_every and self.step % options.sample_every == 0:
                self._draw_samples()
            if last or self.step % options.checkpoint_every == 0:
                self._save()

    def _own_settings(self) -> contextlib.AbstractContextManager[None]:
        return tf32(self.device, self.parts.tf32)

    def _devices(self) -> list[str]:
        return [self.device] if self.device.startswith("cuda") else []

    def train_step(self) -> dict[str, Tensor]:
        """One step of Algorithm 1; returns its metrics as detached scalar tensors, the means of its micro-batches."""
        recipe, count = self.recipe, self.recipe.engine.accumulate
        learning_rate = recipe.optimizer.learning_rate(self.step / recipe.train.steps)
        # Also for whoever takes single steps.
        with self._own_settings():
            rows = [self._micro_batch(self.step * count + number) for number in range(count)]
            with self.sections.of("optimizer"):
                gradient_norm = self.engine.step(learning_rate)
                self.ema.update_parameters(self.model)
        self.all_finite &= torch.isfinite(gradient_norm)
        self.step += 1
        self.images_seen += recipe.train.batch_size
        metrics = rows[0] if count == 1 else _means(rows)
        metrics["gradient_norm"] = gradient_norm
        metrics["learning_rate"] = torch.tensor(learning_rate, dtype=torch.float64)
        return metrics

    def random(self, index: int) -> torch.Generator:
        """The random numbers of this rank's micro-batch `index`, counted from the beginning of training."""
        return generator(self.device, self.recipe.seed, "train", self.world.rank, index=index)

    def _micro_batch(self, index: int) -> dict[str, Tensor]:
        recipe = self.recipe
        # Every random number derives from (seed, rank, step): a resumed run needs no generator's state.
        random = self.random(index)
        torch.manual_seed(stream_seed(recipe.seed, "dropout", self.world.rank, index=index))
        with self.sections.of("data"):
            batch = self.data.next()
        x_pos = from_uint8(batch.images)
        if recipe.data.horizontal_flip:
            mirrored = torch.rand(len(x_pos), generator=random, device=self.device) < 0.5
            x_pos = torch.where(mirrored.view(-1, 1, 1, 1), x_pos.flip(-1), x_pos)
        self.x_pos = x_pos

        chains = BufferChains(self.energy, self.sampler, self.buffer, random)
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
        self.all_finite &= torch.isfinite(loss.detach())
        return metrics

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

    def _require_finite(self) -> None:
        if not all(self.world.all_gather(bool(self.all_finite))):
            saved = self.run.complete_checkpoints()
            kept = f"the checkpoint of step {saved[-1][0]} is untouched: --resume" if saved else "start again"
            raise TrainingFailed(
                f"{self.run.folder}: the loss or its gradient is not finite any more (noticed at step {self.step}); "
                f"{kept} with a smaller optimizer.learning_rate or sampler.step_size, a larger penalty weight, or "
                "optimizer.clip_grad_norm"
            )

    def _log(self, metrics: Mapping[str, Tensor], meter: Meter) -> None:
        self._require_finite()
        row: dict[str, float] = {"step": self.step, "images": self.images_seen}
        row |= self.world.mean({name: float(value) for name, value in metrics.items()})
        row |= {"step": self.step, "images": self.images_seen}
        row |= meter.read(self.images_seen)
        skipped = self.world.all_gather(self.data.skipped)
        row["skipped_images"] = skipped[0] if self.data.whole else sum(skipped)
        if not self.world.first:
            return
        self.saving.done("metrics.jsonl", lambda: self.run.append_metrics(row))
        self.view.metrics(row)
        self.hooks.call("ebmkit_step_end", step=self.step, metrics=row)

    def _draw_samples(self) -> None:
        self._require_finite()
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
            batches = {"samples": x, "data": cast(Tensor, self.x_pos)[: len(x)], "noise": start}
            with frozen(energy), torch.no_grad():
                energies = {
                    name: energy(
                        images.to(self.device), torch.ones(len(images), dtype=torch.int64, device=self.device)
                    ).cpu()
                    for name, images in batches.items()
                }
            self.hooks.call("ebmkit_samples_drawn", step=self.step, images=x, energies=energies, path=path)

    def _save(self, needed: bool = False) -> None:
        self._require_finite()
        parts: dict[str, checkpoints.Stateful] = {"model": self.model, "ema": self.ema, "engine": self.engine}
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
        if self.saved_at != self.step:
            self._save(needed=True)

    def _restore(self, saved: checkpoints.Checkpoint) -> None:
        with self._fitting():
            self.model.load_state_dict(saved.shared["model"])
            self.ema.load_state_dict(saved.shared["ema"])
            self.buffer.load_state_dict(buffer_state(saved, type(self.buffer), self.context))
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
