"""Five training steps of a job whose images and random numbers do not depend on how many processes it has.

`python fed.py CASES.json FOLDER [DEVICE]`, in each process; rank 0 writes FOLDER/NUMBER.safetensors for each case.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmkit import recipe as recipes
from ebmkit.console import Silent
from ebmkit.data.source import Batch, ImageSource
from ebmkit.distributed.job import taking_part
from ebmkit.distributed.place import find_place
from ebmkit.distributed.world import World
from ebmkit.interfaces import Buffer, Draw, EnergyFunction, NoiseSource
from ebmkit.noise import generator
from ebmkit.recipe import Recipe
from ebmkit.run_folder import RunFolder
from ebmkit.state_file import save_state
from ebmkit.trainer import Trainer
from run_helpers import pictures

STEPS = 5


class Rows:
    """Which rows of the job's batch this rank's next micro-batch has: consecutive ones."""

    def __init__(self, recipe: Recipe, world: World) -> None:
        self.batch, self.parts = recipe.train.batch_size, world.size * recipe.engine.accumulate
        self.rank, self.size, self.accumulate = world.rank, world.size, recipe.engine.accumulate

    def first(self, index: int) -> int:
        """The first row of micro-batch `index`."""
        return (index % self.accumulate * self.size + self.rank) * (self.batch // self.parts)

    def of(self, whole: Tensor, index: int) -> Tensor:
        """The rows of micro-batch `index`."""
        return whole[self.first(index) :][: self.batch // self.parts]

    def step(self, index: int) -> int:
        return index // self.accumulate


class FedImages(ImageSource):
    """The images of step s, in one order for the whole job."""

    def __init__(self, rows: Rows, device: str) -> None:
        self.rows, self.device, self.index = rows, device, 0

    def go_to(self, state: Mapping[str, Any] | None) -> None:
        raise AssertionError("nothing goes back here")

    def next(self) -> Batch:
        step, index = self.rows.step(self.index), self.index
        self.index += 1
        images = torch.from_numpy(pictures(self.rows.batch, seed=step)).permute(0, 3, 1, 2)
        labels = torch.zeros(self.rows.batch // self.rows.parts, dtype=torch.int64)
        return Batch(self.rows.of(images, index).to(self.device), labels.to(self.device))

    def state_dict(self) -> dict[str, Any]:
        return {}


class FedBuffer(Buffer):
    """The chains of step s: noise, at time steps in one order for the whole job."""

    name = "fed"

    def __init__(self, rows: Rows, time_steps: int, device: str) -> None:
        self.rows, self.time_steps, self.device, self.index = rows, time_steps, device, 0

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        random = torch.Generator().manual_seed(1000 + self.rows.step(self.index))
        x = torch.randn(self.rows.batch, 1, 8, 8, generator=random)
        t = torch.randint(1, self.time_steps + 1, (self.rows.batch,), generator=random)
        index, self.index = self.index, self.index + 1
        return Draw(torch.arange(n), self.rows.of(x, index).to(self.device), self.rows.of(t, index).to(self.device))

    def store(self, slots: Tensor, x: Tensor) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


class FedNoise:
    """The Langevin noise of step s, in one order for the whole job."""

    def __init__(self, rows: Rows, index: int) -> None:
        self.rows, self.index = rows, index
        self.random = torch.Generator().manual_seed(2000 + rows.step(index))

    def normal_like(self, x: Tensor) -> Tensor:
        return self.rows.of(torch.randn(self.rows.batch, *x.shape[1:], generator=self.random), self.index).to(x.device)

    def uniform_like(self, x: Tensor) -> Tensor:
        return self.rows.of(torch.rand(self.rows.batch, *x.shape[1:], generator=self.random), self.index).to(x.device)


class FedSampler:
    """The recipe's sampler, on `FedNoise`."""

    def __init__(self, sampler: Any, rows: Rows) -> None:
        self.sampler, self.rows, self.index, self.steps = sampler, rows, 0, sampler.steps

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        index, self.index = self.index, self.index + 1
        refined: Tensor = self.sampler.refine(energy, x, t, FedNoise(self.rows, index))
        return refined


class FedTrainer(Trainer):
    """The real trainer, fed."""

    def __init__(self, recipe: Recipe, run: RunFolder, world: World, device: str) -> None:
        super().__init__(recipe, run, device, Silent(), world)
        self.rows = Rows(recipe, world)
        self.data = FedImages(self.rows, device)
        self.buffer = FedBuffer(self.rows, recipe.time_steps, device)
        self.sampler = FedSampler(self.sampler, self.rows)  # type: ignore[assignment]

    def random(self, index: int) -> torch.Generator:
        """One stream for the job, from this micro-batch's row on: penalties draw one number for each image."""
        random = generator(self.device, self.recipe.seed, "fed", index=self.rows.step(index))
        torch.rand(self.rows.first(index), generator=random, device=self.device)
        return random


def run(table: dict[str, Any], folder: Path, number: int, world: World, device: str) -> None:
    recipe = recipes.from_table(table, "fed", "fed")
    run_folder = RunFolder(folder / f"run-{number}")
    if world.first:
        run_folder.create(recipe.to_toml())
    world.barrier()
    trainer = FedTrainer(recipe, run_folder, world, device)
    trainer.model.train()
    rows = [world.mean({k: float(v) for k, v in trainer.train_step().items()}) for _ in range(STEPS)]
    weights = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
    state = {
        "weights": weights,
        "ema": trainer.ema.state_dict(),
        "engine": trainer.engine.state_dict(),
        "metrics": rows,
    }
    if world.first:
        save_state(folder / f"{number}.safetensors", state)
    world.barrier()


def main() -> None:
    torch.set_num_threads(1)
    cases, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    device = sys.argv[3] if len(sys.argv) > 3 else "cpu"
    with taking_part(find_place(), print) as world:
        for number, table in enumerate(cases):
            run(table, folder, number, world, device)


if __name__ == "__main__":
    main()
