"""Faults of buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from ebmkit import (
    BaseOptions,
    Buffer,
    Context,
    Draw,
)
from ebmkit.noise import generator as noise_generator
from faulty_components.common import breaks


class GoodBuffer(Buffer):
    """Cycles through the time steps."""

    name = "good"

    class Options(BaseOptions):
        """Options."""

        size: int = Field(default=100, ge=1, description="Slots over all ranks.")

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        super().__init__(options, context)
        count = options.size // context.world_size + (context.rank < options.size % context.world_size)
        random = self.start(context)
        self.x = torch.randn(count, *context.image_shape, generator=random)
        self.t = torch.randint(1, context.time_steps + 1, (count,), generator=random)

    def start(self, context: Context) -> torch.Generator:
        return noise_generator(context.device, context.seed, "good", context.rank)

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        if n > len(self.t):
            raise ValueError(f"{len(self.t)} slots, fewer than {n}")
        return torch.randperm(len(self.t), generator=generator)[:n]

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        slots = self.choose(n, generator)
        return Draw(slots, self.x[slots], self.t[slots])

    def store(self, slots: Tensor, x: Tensor) -> None:
        self.x[slots] = x
        self.t[slots] = self.next(self.t[slots])

    def next(self, t: Tensor) -> Tensor:
        return torch.where(t > 1, t - 1, self.context.time_steps)

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x, "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pairs = ((self.x, state["x"]), (self.t, state["t"]))
        if any(own.shape != given.shape for own, given in pairs):
            raise ValueError("another size")
        for own, given in pairs:
            own.copy_(given)


@breaks("draws chains", "time steps must be in 1..4, but go from 0")
class CountsFromZero(GoodBuffer):
    """Has time steps 0..T-1."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.t -= 1


@breaks("slots of a draw are different", "draw without replacement")
class DrawsWithReplacement(GoodBuffer):
    """Draws a slot twice now and then."""

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        super().choose(n, generator)
        return torch.randint(len(self.t), (n,), generator=generator)


@breaks("randomness comes from the generator", "draws from torch's global random state")
class IgnoresTheGenerator(GoodBuffer):
    """Permutes by the global generator."""

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        super().choose(n, generator)
        return torch.randperm(len(self.t))[:n]


@breaks("the caller may change what it draws", "draw must give copies")
class GivesViews(GoodBuffer):
    """Gives its own memory."""

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        slots = super().draw(n, generator).slots
        first = int(slots[0]) if n == 1 else 0
        return Draw(torch.arange(first, first + n), self.x[first : first + n], self.t[first : first + n])


@breaks("every time step is visited", "the energy would never be trained at the others")
class SticksAtTheEnd(GoodBuffer):
    """Begins at T and moves by two."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.t.fill_(context.time_steps)

    def next(self, t: Tensor) -> Tensor:
        return torch.where(t > 2, t - 2, self.context.time_steps)


@breaks("every time step is visited", "where t - 1 becomes 0, begin again at T")
class RunsBelowOne(GoodBuffer):
    """Never begins again."""

    def next(self, t: Tensor) -> Tensor:
        return t - 1


@breaks("stored images come back", "come back from another slot than they were stored in")
class MixesSlots(GoodBuffer):
    """Stores into sorted slots, images in the order of the draw."""

    def store(self, slots: Tensor, x: Tensor) -> None:
        super().store(slots.sort().values, x)


@breaks("store leaves other slots alone", "write to self.x[slots] only")
class OverwritesAll(GoodBuffer):
    """Fills every slot."""

    def store(self, slots: Tensor, x: Tensor) -> None:
        super().store(slots, x)
        self.x[:] = x[0]


@breaks("state round trip", "something that matters is not in state_dict()")
class ForgetsTimeSteps(GoodBuffer):
    """Saves the images only."""

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict({"x": state["x"], "t": self.t})


@breaks("state round trip", "or rounded there")
class RoundsTheState(GoodBuffer):
    """Saves in half precision."""

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x.half(), "t": self.t}


@breaks("state round trip", "the state cannot be saved")
class SavesAnObject(GoodBuffer):
    """Puts a generator into its state."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "random": torch.Generator()}


@breaks("a state that does not fit is refused", "compare shapes, and raise ValueError")
class TakesAnything(GoodBuffer):
    """Loads a state of any size."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.x, self.t = state["x"].clone(), state["t"].clone()


@breaks("loading takes a copy", "two buffers share memory")
class SharesMemory(GoodBuffer):
    """Keeps the tensors that it is given."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.x, self.t = state["x"], state["t"]


@breaks("a state that does not fit is refused", "a refused state was taken in part")
class RefusesTooLate(GoodBuffer):
    """Copies the images before it looks at the time steps."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for own, given in ((self.x, state["x"]), (self.t, state["t"])):
            if own.shape != given.shape:
                raise ValueError("another size")
            own.copy_(given)


@breaks("store keeps a copy", "store keeps the caller's tensor")
class KeepsTheCallersTensor(GoodBuffer):
    """Keeps rows of the tensor that it is given."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(options, context)
        self.rows = list(self.x)

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        self.x = torch.stack(self.rows)
        return super().draw(n, generator)

    def store(self, slots: Tensor, x: Tensor) -> None:
        for slot, row in zip(slots.tolist(), x, strict=True):
            self.rows[slot] = row
        self.t[slots] = self.next(self.t[slots])

    def state_dict(self) -> dict[str, Any]:
        return {"x": torch.stack(self.rows), "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.rows = list(self.x.clone())


@breaks("begins by its seed and rank", "every rank begins with the same chains")
class IgnoresTheRank(GoodBuffer):
    """Begins the same on every rank."""

    def start(self, context: Context) -> torch.Generator:
        return noise_generator(context.device, context.seed, "good")


@breaks("more chains than slots are refused", "give each rank size / world_size slots")
class HoldsAllOnEachRank(GoodBuffer):
    """Has `size` slots on every rank."""

    def __init__(self, options: Any, context: Context) -> None:
        super().__init__(
            options, Context(context.image_shape, context.time_steps, rank=context.rank, seed=context.seed)
        )
        self.x = torch.randn(options.size, *context.image_shape, generator=self.start(context))


@breaks("can be dealt out anew", "load_state_dict refuses what redeal() makes for 4 ranks")
class DealsOutWholeParts(GoodBuffer):
    """Gives no rank a slot more than another one, and so loses some."""

    @classmethod
    def redeal(cls, states: Sequence[Mapping[str, Any]], context: Context) -> dict[str, Any]:
        whole = super().redeal(states, Context(context.image_shape, context.time_steps))
        count = len(whole["t"]) // context.world_size
        return {name: rows[context.rank * count :][:count] for name, rows in whole.items()}
