"""One run's parts, its place in training, and a single step of Algorithm 1."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from ebmkit import calls
from ebmkit import checkpoint as checkpoints
from ebmkit.averaging import MovingAverage
from ebmkit.blame import wrong
from ebmkit.chains import BufferChains
from ebmkit.data import ImageSource, open_images
from ebmkit.distributed.world import Solo, World
from ebmkit.elastic import buffer_state, data_state
from ebmkit.energy_model import EnergyModel
from ebmkit.engine.building import build_engine
from ebmkit.engine.interface import Engine
from ebmkit.engine.settings import is_plain
from ebmkit.errors import BadInput
from ebmkit.fast.energy import FastEnergy
from ebmkit.fast.parts import Parts, choose
from ebmkit.fast.preparing import forward_flops, prepare
from ebmkit.interfaces import Buffer, Draw, Objective, Pairs, Sampler
from ebmkit.noise import generator, stream_seed
from ebmkit.pipeline import build_energy, build_part, build_regularizers, frozen, gradient_bound
from ebmkit.precision import autocast, tf32
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.sampling import from_uint8
from ebmkit.sections import Sections, Unwatched
from ebmkit.view import View
from ebmkit.watchdog.guard import Guard
from ebmkit.watchdog.journal import PENALTY, Journal, read_journal
from ebmkit.watchdog.penalty import add_penalty
from ebmkit.watchdog.watchdog import Watchdog


class Learner:
    """One run's parts and its place in training, on each process of a job alike."""

    def __init__(self, recipe: Recipe, run: RunFolder, device: str, view: View, world: World | None = None) -> None:
        self.run, self.device, self.view = run, device, view
        self.world = world or Solo()
        journal = Journal(run.folder, self.world.broadcast(read_journal(run.folder)), self.world.first, view.say)
        self.recipe = recipe = add_penalty(recipe) if journal.count(PENALTY) else recipe
        self.context = context = recipe.context(device, self.world.rank, self.world.size)
        # Rank 0 says which: a shared file system may not show the newest one everywhere.
        saved = checkpoints.load(run, self.world.broadcast(checkpoints.newest(run)))
        guard = Guard(recipe.watchdog, device)
        self.watchdog = Watchdog(recipe.watchdog, guard, journal, recipe.time_steps, gradient_bound(recipe))
        self.regularizers = build_regularizers(recipe, context)
        self.model = build_energy(self._attempt(), context, self.regularizers)
        self.watchdog.weights = list(self.model.parameters())
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
        self.pairs: Pairs | None = None
        """What the last micro-batch compared."""
        self.metrics: Mapping[str, Tensor] = {}
        """Those of the last step."""

    @property
    def micro_batch(self) -> int:
        """Real images in one forward of this rank."""
        return self.recipe.train.batch_size // (self.world.size * self.recipe.engine.accumulate)

    @property
    def averaged(self) -> EnergyModel:
        """The network with the moving average of the weights, which samples are drawn with."""
        return cast(EnergyModel, self.ema.module)

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

        chains = BufferChains(self.energy, self.sampler, self.buffer, random, *self._mending(index))
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
        self.pairs = pairs
        return metrics

    def _mending(self, index: int) -> tuple[Callable[[Draw], Draw], Callable[[Tensor, Tensor], Tensor]] | tuple[()]:
        """What the watchdog does with chains that were drawn, and with those that were refined."""
        if not self.watchdog.acts:
            return ()
        guard = self.watchdog.guard
        return lambda drawn: guard.restart(self.buffer, drawn, self._random("restart", index)), guard.put_back

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

    def _choose(self) -> Parts:
        train, flops = self.recipe.train, None
        if train.fast == "auto" and self.device.startswith("cuda"):
            # In evaluations: a Langevin step is 2, the objective 6, a penalty 6 (docs: benchmarks).
            evaluations = train.steps * train.batch_size / self.world.size * (2 * self.sampler.steps + 12)
            flops = evaluations * forward_flops(self.model, self.recipe.data.shape, self.device)
        parts = choose(train.fast, train.precision, self.recipe.fast, self.device, flops)
        # DeepSpeed takes weights in torch's usual order of memory only.
        return parts if is_plain(self.recipe.engine, self.world.size) else replace(parts, channels_last=False)

    def _open_data(self, saved: checkpoints.Checkpoint | None) -> ImageSource:
        state = None if saved is None else data_state(saved, self.world)
        data, view = self.recipe.data, self.view
        return open_images(data, self.context, self.micro_batch, state=state, warn=view.say, progress=view.loading)

    def _own_settings(self) -> contextlib.AbstractContextManager[None]:
        return tf32(self.device, self.parts.tf32)

    def _devices(self) -> list[str]:
        return [self.device] if self.device.startswith("cuda") else []

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
