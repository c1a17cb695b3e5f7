"""The model file: EMA weights in a safetensors file that describes itself, and what one does with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ebmkit import __version__
from ebmkit import recipe as recipes
from ebmkit.blame import blamed_on
from ebmkit.bounded import GIB, image_bytes, memory_of
from ebmkit.device import choose_device
from ebmkit.distributed.world import Solo, World
from ebmkit.energy_model import EnergyModel
from ebmkit.errors import BadInput
from ebmkit.fast.energy import FastEnergy, Say
from ebmkit.fast.parts import choose
from ebmkit.fast.preparing import forward_flops, prepare
from ebmkit.interfaces import PLUGIN_API, NoiseSource, Sampler, Schedule
from ebmkit.model_file import FORMAT, FORMAT_VERSION, read_model_file
from ebmkit.noise import PerImageNoise
from ebmkit.pipeline import build_part, frozen, problems_of
from ebmkit.precision import autocast, tf32
from ebmkit.recipe import Recipe
from ebmkit.registry import default_registry
from ebmkit.sampling import start_noise, sweep
from ebmkit.sharing import MODEL
from ebmkit.sharing.hub import fetch_model, find_place
from ebmkit.state_file import write_tensors

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (gradient evaluations done, all of them)."""


class Model:
    """A trained energy with its recipe: evaluates energies and draws images."""

    def __init__(
        self,
        energy: EnergyModel,
        recipe: Recipe,
        device: str,
        metadata: Mapping[str, str],
        path: Path | None = None,
        fast: str | None = None,
        say: Say = lambda message: None,
    ) -> None:
        self.energy = energy.eval().requires_grad_(False)
        self._image_bytes = image_bytes(energy, recipe.data.shape)
        self.fast, self.say = fast or recipe.train.fast, say
        parts = choose(self.fast, recipe.train.precision if fast is None else "auto", recipe.fast, device)
        self.parts = prepare(self.energy, parts, device, say)
        self._fast_energy = FastEnergy(self.energy, self.parts)
        self.recipe = recipe
        self.device = device
        self.metadata = dict(metadata)
        self.path = path

    def __repr__(self) -> str:
        return f"Model({self.recipe.name!r}, image_shape={self.image_shape}, steps={self.metadata.get('steps')})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of the images that it draws."""
        return self.recipe.data.shape

    def __call__(self, x: Tensor, t: Tensor | int = 1) -> Tensor:
        """Energies `[B]` of images `x[B, C, H, W]` in [-1, 1] at time steps `t[B]` (or one for all; 1 is the last)."""
        x = x.to(self.device)
        if isinstance(t, int):
            t = torch.full((x.shape[0],), t, dtype=torch.int64)
        with torch.no_grad():
            energy: Tensor = self.energy(x, t.to(self.device))
        return energy

    def sample(
        self,
        count: int,
        seed: int = 0,
        batch_size: int = 64,
        overrides: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """`count` images `[count, C, H, W]`, float32 around [-1, 1], on the CPU.

        Image `i` depends on `seed` and `i` only. `overrides` change the recipe's sampler: `{"sampler.steps": 6}`.
        """
        return torch.cat(list(self.sample_batches(count, seed, batch_size, overrides, progress)))

    def sample_batches(
        self,
        count: int,
        seed: int = 0,
        batch_size: int = 64,
        overrides: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        world: World | None = None,
    ) -> Iterator[Tensor]:
        """The images of `sample`, batch by batch, for counts that do not fit into memory.

        In a job of several processes they share the batches, and rank 0 has all of them in their order: the same images
        whatever their number. The other ranks have none, but must go to the end, too.
        """
        return self.map_batches(lambda images: images, count, seed, batch_size, overrides, progress, world)

    def map_batches(
        self,
        function: Callable[[Tensor], T],
        count: int,
        seed: int = 0,
        batch_size: int = 64,
        overrides: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        world: World | None = None,
    ) -> Iterator[T]:
        """What `function` makes of each batch of `sample_batches`, in the process that drew it: features of images."""
        if count < 1 or batch_size < 1:
            raise BadInput("count and batch_size must be at least 1")
        recipe = self.sampling_recipe(overrides)
        sampler = build_part(recipe.sampler, recipe.context(self.device))
        with blamed_on(sampler, "steps"):
            steps = sampler.steps
        world = world or Solo()
        self.require_memory(min(batch_size, count))
        self._compile_for(min(batch_size, count), count * recipe.time_steps * steps / world.size)
        batches = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
        for number in range(0, len(batches), world.size):
            together = batches[number : number + world.size]
            mine = together[world.rank] if world.rank < len(together) else range(0)

            def observe(t: int, _: Tensor, before: int = together[0].start, now: int = sum(map(len, together))) -> None:
                if progress is not None:
                    done = before * recipe.time_steps + now * (recipe.time_steps - t + 1)
                    progress(done * steps, count * recipe.time_steps * steps)

            drawn = None
            if mine:
                noise = PerImageNoise(seed, mine, self.device)
                start = start_noise(noise, len(mine), self.image_shape, self.device)
                drawn = function(self.sweep(start, noise, sampler, observe))
            for part in world.gather(drawn) or ():
                if part is not None:
                    yield part

    def sweep(
        self,
        x: Tensor,
        noise: NoiseSource,
        sampler: Sampler | None = None,
        observe: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """One sweep from `x[B, C, H, W]` with this noise, as `sample` draws a batch; as much, float32 on the CPU.

        `sampler` is one built for this recipe's context, by default the recipe's. `observe(t, x)` is called after each
        time step.
        """
        if sampler is None:
            sampler = build_part(self.recipe.sampler, self.recipe.context(self.device))
        with frozen(self.energy), autocast(self.device, self.parts.precision), tf32(self.device, self.parts.tf32):
            x = sweep(self._fast_energy, sampler, x.to(self.device), self.recipe.time_steps, noise, observe)
        return x.float().cpu()

    def require_memory(self, batch_size: int) -> None:
        """Raise `BadInput` for images that this machine cannot hold: it is the file that says how large they are."""
        needed, there = batch_size * self._image_bytes, memory_of(self.device)
        if needed > there:
            _, height, width = self.image_shape
            raise BadInput(
                f"{self.path or self.recipe.name}: {batch_size} images of {width}x{height} at a time need more than "
                f"{needed / GIB:,.0f} GiB of memory, {self.device} has {there / GIB:,.0f}; take a smaller --batch-size"
            )

    def _compile_for(self, batch_size: int, evaluations: float) -> None:
        """Compile for batches of this size, if so many gradients of an image are worth it."""
        flops = None
        if self.device.startswith("cuda"):
            flops = 2 * evaluations * self._forward_flops
        parts = choose(self.fast, self.parts.precision, self.recipe.fast, self.device, flops)
        shape = (batch_size, *self.image_shape)
        if parts.compile and self._fast_energy.shape != shape and not self._fast_energy.refused:
            with tf32(self.device, parts.tf32):
                self._fast_energy.compile(shape, self.device, self.say, parts.cuda_graphs, trained=False)

    @cached_property
    def _forward_flops(self) -> float:
        # Counting takes tens of milliseconds, as much as a small batch.
        return forward_flops(self.energy, self.image_shape, self.device)

    def sampling_recipe(self, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe with these options of its sampler; raises `BadInput` for other keys and for what does not fit."""
        if not overrides:
            return self.recipe
        for key in overrides:
            if not key.startswith("sampler."):
                raise BadInput(f"--set {key}: a trained model takes sampler options only, such as sampler.steps=5")
        table = self.recipe.to_table()
        changed = recipes.from_table(table, "the model's recipe", self.recipe.name, overrides)
        problems = problems_of(changed.sampler, changed.context())
        if problems:
            raise BadInput("; ".join(f"sampler.{problem}" for problem in problems))
        return changed


def save_model(path: Path, energy: EnergyModel, recipe: Recipe, images_seen: int, steps: int) -> None:
    """Write the model file of these (EMA) weights, atomically."""
    # Trackers watched the training; whoever uses the model needs none of them.
    recipe = replace(recipe, trackers=())
    registry = default_registry()
    used = {(part.kind, part.name) for part in recipe.parts.values()}
    options = [part.options for part in recipe.parts.values()] + [recipe.optimizer]
    used |= {("schedule", value.name) for item in options for _, value in item if isinstance(value, Schedule)}
    found = [registry.find(kind, name) for kind, name in sorted(used)]
    plugins = {f"{item.kind}.{item.name}": item.source for item in found}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "plugin_api": str(PLUGIN_API),
        "ebmkit": __version__,
        "torch": str(torch.__version__),
        "name": recipe.name,
        "recipe": json.dumps(recipe.to_table()),
        "plugins": json.dumps(plugins),
        "images_seen": str(images_seen),
        "steps": str(steps),
    }
    weights = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in energy.state_dict().items()}
    write_tensors(path, weights, metadata)


def load_model(
    path: str | Path, device: str = "auto", fast: str | None = None, say: Say = lambda message: None
) -> Model:
    """The model of a file that `save_model` wrote, or of a folder or `hf://owner/name[@revision]` that holds one.

    No pickle is read, nothing in the file is run, and loading takes memory in proportion to its size.
    `fast` is "auto", "max" or "off", by default what the recipe's `train.fast` was; what falls back is told to `say`.
    Raises `BadInput` for a file that is missing, truncated or not ours, `PluginMissing` for a plugin that it needs.
    """
    place = find_place(str(path))
    path = fetch_model(place) if place is not None else Path(path)
    if path.is_dir():
        path /= MODEL
    device, read = choose_device(device), read_model_file(path)
    # What lies in the hub's cache is no run of ours.
    own = None if place is not None else path
    return Model(read.energy.to(device), read.recipe, device, read.metadata, own, fast, say)
