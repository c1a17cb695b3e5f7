"""The contract of buffers."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmkit.interfaces import Buffer, Draw
from ebmkit.state_file import load_state, save_state
from ebmkit.testing.contract import Contract, ContractBroken, require, skip
from ebmkit.testing.globals import seeded, unchanged_globals

SLOTS = 33
"""Few enough that a slot is soon drawn again, and not the same share for two ranks."""

REFUSALS = (ValueError, RuntimeError, KeyError)
"""What the core takes for "this state does not fit"."""


class BufferContract(Contract):
    """What training and exact resume rely on in a buffer."""

    def bound_options(self) -> Any:
        """The options; `size`, where there is one and it is not given, is small and odd."""
        size = {"size": SLOTS} if "size" in self._fields() else {}
        return self._bind({**self._examples(), **size, **self.options}, "the options of this test")

    def generator(self, seed: int = 0) -> torch.Generator:
        """The generator of a training step."""
        return torch.Generator().manual_seed(seed)

    def slots(self) -> int:
        """How many chains can be drawn at once on one rank, 33 at most."""
        return min(SLOTS, int(getattr(self.bound_options(), "size", SLOTS)))

    def drawn(self, buffer: Buffer, seed: int = 0, n: int | None = None) -> Draw:
        """A draw that is whole."""
        drawn = buffer.draw(self.slots() if n is None else n, self.generator(seed))
        require(isinstance(drawn, Draw), f"draw must return an ebmkit.Draw, not {type(drawn).__name__}")
        return drawn

    def play(self, buffer: Buffer, rounds: int) -> None:
        """Draw and store for some rounds, as training does."""
        for step in range(rounds):
            drawn = self.drawn(buffer, step, max(1, self.slots() // 2))
            buffer.store(drawn.slots, drawn.x * 0.5 + 0.1)

    def test_draws_chains(self) -> None:
        """`draw(n)` gives n slots (int64), images (float32, finite) and time steps in 1..T (int64) on the device."""
        context, buffer = self.context(), self.build()
        for n in (1, self.slots()):
            slots, x, t = self.drawn(buffer, n=n)
            require(
                slots.shape == (n,) and slots.dtype == torch.int64, f"slots must be int64 [{n}], not {_kind(slots)}"
            )
            require(
                x.shape == (n, *context.image_shape) and x.dtype == torch.float32,
                f"images must be float32 {[n, *context.image_shape]}, not {_kind(x)}",
            )
            require(t.shape == (n,) and t.dtype == torch.int64, f"time steps must be int64 [{n}], not {_kind(t)}")
            require(x.isfinite().all(), "a drawn image is not finite")
            require(
                ((t >= 1) & (t <= context.time_steps)).all(),
                f"time steps must be in 1..{context.time_steps}, but go from {int(t.min())} to {int(t.max())}",
            )
            require(all(item.device.type == "cpu" for item in (slots, x, t)), "a draw is not on the context's device")

    def test_randomness_comes_from_the_generator(self) -> None:
        """Equal generators draw the same chains from equal buffers; no global random state is used."""
        n, buffers = max(1, self.slots() // 2), (self.build(), self.build())
        with unchanged_globals("draw"):
            first = self.drawn(buffers[0], 3, n)
        with seeded(99):
            second = self.drawn(buffers[1], 3, n)
        require(
            all(torch.equal(a, b) for a, b in zip(first, second, strict=True)),
            "two equal buffers differ in what they draw by equal generators: take random numbers "
            "from the generator that draw is given only",
        )

    def test_slots_of_a_draw_are_different(self) -> None:
        """A draw holds no slot twice, or two chains would be stored into one."""
        buffer = self.build()
        for seed in range(5):
            slots = self.drawn(buffer, seed).slots
            require(
                len(set(slots.tolist())) == len(slots),
                "a draw has a slot twice: draw without replacement (torch.randperm)",
            )

    def test_more_chains_than_slots_are_refused(self) -> None:
        """Drawing more chains than this rank has slots raises `ValueError`; `size` counts the slots of all ranks."""
        if not hasattr(self.bound_options(), "size"):
            skip("no option `size`")
        size = self.bound_options().size
        for world_size in (1, 2):
            share = -(-size // world_size)
            buffer = self.build(world_size=world_size)
            try:
                buffer.draw(share + 1, self.generator())
            except ValueError:
                require(buffer.draw(share, self.generator()).slots.shape == (share,), "not every slot can be drawn")
                continue
            require(
                False,
                f"rank 0 of {world_size} gives {share + 1} chains although size = {size} over all ranks: give each "
                "rank size / world_size slots, and raise ValueError where fewer are left than asked for",
            )

    def test_bad_chains_start_again(self) -> None:
        """`restart` gives finite chains in place of the bad ones, leaves the others, and the slots go on from there."""
        buffer, n = self.build(), max(2, self.slots() // 2)
        self.play(buffer, 3)
        drawn = self.drawn(buffer, 5, n)
        bad = torch.arange(n) % 2 == 0
        spoiled = drawn._replace(x=torch.where(bad.view(-1, 1, 1, 1), torch.nan, drawn.x))
        again = buffer.restart(spoiled, bad, self.generator(1))
        require(isinstance(again, Draw), f"restart must return an ebmkit.Draw, not {type(again).__name__}")
        require(again.x.isfinite().all(), "restart returned a chain that is not finite")
        require(
            torch.equal(again.x[~bad], drawn.x[~bad]) and torch.equal(again.t[~bad], drawn.t[~bad]),
            "restart changed a chain that is not bad",
        )
        require(torch.equal(again.slots, drawn.slots), "restart must return the slots that were drawn")
        require(
            ((again.t >= 1) & (again.t <= self.context().time_steps)).all(),
            f"restart must give time steps in 1..{self.context().time_steps}",
        )
        buffer.store(again.slots, again.x)
        require(self.drawn(buffer, 6).x.isfinite().all(), "after restart and store a drawn image is not finite")

    def test_a_chain_takes_a_number_of_steps(self) -> None:
        """`chain_length` is None, or a number of training steps from 0."""
        found = self.component.chain_length(self.bound_options(), self.context(), 2)
        number = isinstance(found, int | float) and not isinstance(found, bool) and found >= 0
        require(found is None or number, f"chain_length must return None or a number from 0, not {found!r}")

    def test_begins_by_its_seed_and_rank(self) -> None:
        """Built twice it begins with the same chains; another seed or rank begins with other ones."""
        buffers = [self.build(), self.build(), self.build(seed=1)]
        buffers += [self.build(rank=rank, world_size=2) for rank in (0, 1)]
        n = max(1, self.slots() // 2)
        same, again, seed, *ranks = (self.drawn(buffer, n=n) for buffer in buffers)
        require(
            torch.equal(same.x, again.x) and torch.equal(same.t, again.t),
            "two buffers of one context begin differently: draw the start from "
            "ebmkit.noise.generator(context.device, context.seed, NAME, context.rank)",
        )
        if not self.build().state_dict():
            skip("a buffer without state has no start of its own")
        require(
            not torch.equal(same.x, seed.x) or not torch.equal(same.t, seed.t),
            "a buffer begins the same for another seed: use context.seed",
        )
        shared = (ranks[0].x[:, None] == ranks[1].x[None]).flatten(2).all(2)
        require(not shared.any(), "every rank begins with the same chains: use context.rank for the start")

    def test_the_caller_may_change_what_it_draws(self) -> None:
        """Changing a drawn tensor changes nothing in the buffer."""
        buffer = self.build()
        expected = [item.clone() for item in self.drawn(buffer)]
        for item in self.drawn(buffer):
            item.zero_()
        require(
            all(torch.equal(a, b) for a, b in zip(expected, self.drawn(buffer), strict=True)),
            "changing a drawn tensor changes the buffer: draw must give copies (indexing by a tensor does)",
        )

    def test_store_leaves_other_slots_alone(self) -> None:
        """`store(slots, x)` changes the chains of those slots only."""
        if self.slots() < 2:
            skip("a single slot")
        # Two equal buffers, one of which stores: some choose their next slots by what was drawn before.
        buffers, n = (self.build(), self.build()), max(1, self.slots() // 2)
        chosen = self.drawn(buffers[0], 1, n)
        self.drawn(buffers[1], 1, n)
        buffers[0].store(chosen.slots, torch.full_like(chosen.x, 7.0))
        (slots, x, t), (_, other_x, other_t) = (self._by_slot(buffer) for buffer in buffers)
        others = ~torch.isin(slots, chosen.slots)
        require(
            torch.equal(x[others], other_x[others]) and torch.equal(t[others], other_t[others]),
            "store changes slots that it was not given: write to self.x[slots] only",
        )

    def test_stored_images_come_back(self) -> None:
        """A chain that goes on is the image that was stored in its own slot."""
        buffer = self.build()
        if not buffer.state_dict():
            skip("a buffer without state keeps nothing")
        chosen = self.drawn(buffer, 1)
        # Each image says which slot it was stored in.
        marks = torch.linspace(0.1, 0.9, len(chosen.slots))
        buffer.store(chosen.slots, marks.view(-1, 1, 1, 1).expand_as(chosen.x).clone())
        mark_of = dict(zip(chosen.slots.tolist(), marks.tolist(), strict=True))
        back = returned = 0
        for seed in range(2, 12):
            drawn = self.drawn(buffer, seed)
            for slot, image in zip(drawn.slots.tolist(), drawn.x, strict=True):
                mean = float(image.mean())
                if (
                    slot in mark_of
                    and float(image.std()) < 1e-2
                    and min(abs(mean - m) for m in mark_of.values()) < 1e-2
                ):
                    returned += 1
                    back += abs(mean - mark_of[slot]) < 1e-2
        require(returned, "no stored image ever comes back: store must keep x, or state_dict be empty")
        require(
            back == returned,
            f"{returned - back} of {returned} images come back from another slot than they were stored in: "
            "x[i] belongs to slots[i]",
        )

    def test_store_keeps_a_copy(self) -> None:
        """What the caller does to `x` after `store` does not reach the buffer, and `store` does not change `x`."""
        buffer = self.build()
        drawn = self.drawn(buffer, 1)
        x = drawn.x.clone()
        buffer.store(drawn.slots, x)
        require(torch.equal(x, drawn.x), "store changes the images that it is given")
        expected = self._everything(buffer)
        x.fill_(9.0)
        require(torch.equal(expected.x, self._everything(buffer).x), "store keeps the caller's tensor: copy it")

    def test_every_time_step_is_visited(self) -> None:
        """Over many rounds time steps stay in 1..T, and each of them comes up: none is left untrained."""
        last, buffer, seen = self.context().time_steps, self.build(), set()
        for step in range(6 * last + 6):
            drawn = self.drawn(buffer, step)
            require(
                ((drawn.t >= 1) & (drawn.t <= last)).all(),
                f"after {step} rounds a time step is outside of 1..{last}: where t - 1 becomes 0, begin again at T",
            )
            seen |= set(drawn.t.tolist())
            buffer.store(drawn.slots, drawn.x)
        require(
            seen == set(range(1, last + 1)),
            f"of the time steps 1..{last} only {sorted(seen)} come up in {6 * last + 6} rounds; the energy would never "
            "be trained at the others",
        )

    def test_state_round_trip(self) -> None:
        """Through a file and into a new buffer, the state is the same bit for bit, and so is all that follows."""
        buffer, other = self.build(), self.build(seed=5)
        self.play(buffer, 5)
        self.play(other, 3)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.safetensors"
            try:
                save_state(path, {"buffer": buffer.state_dict()})
            except TypeError as error:
                raise ContractBroken(f"the state cannot be saved: {error}") from error
            other.load_state_dict(load_state(path)["buffer"])
        require(
            _equal(buffer.state_dict(), other.state_dict()),
            "after loading, state_dict() is not what was saved: save everything, load everything, round nothing",
        )
        for step in range(5):
            a, b = self.drawn(buffer, step), self.drawn(other, step)
            require(
                all(torch.equal(i, j) for i, j in zip(a, b, strict=True)),
                "a buffer that was loaded draws other chains than the one that was saved: something that matters is "
                "not in state_dict(), or rounded there",
            )
            buffer.store(a.slots, a.x * 0.5)
            other.store(b.slots, b.x * 0.5)

    def test_loading_takes_a_copy(self) -> None:
        """A buffer that was loaded shares no memory with the state that it was given."""
        buffer, other = self.build(), self.build(seed=5)
        if not buffer.state_dict():
            skip("a buffer without state")
        state = buffer.state_dict()
        other.load_state_dict(state)
        expected = self._everything(buffer)
        self.play(other, 4)
        require(
            torch.equal(expected.x, self._everything(buffer).x) and torch.equal(expected.t, self._everything(buffer).t),
            "two buffers share memory after load_state_dict: copy what it is given (tensor.copy_)",
        )

    def test_can_be_dealt_out_anew(self) -> None:
        """`redeal` makes states for another number of ranks from those of all ranks; no slot is lost."""
        saved = [self.build(rank=rank, world_size=2) for rank in range(2)]
        for buffer in saved:
            self.play(buffer, 3)
        states = [buffer.state_dict() for buffer in saved]
        for ranks in (1, 4):
            dealt = []
            for rank in range(ranks):
                buffer, place = self.build(rank=rank, world_size=ranks), self.context(rank=rank, world_size=ranks)
                try:
                    state = self.component.redeal(copy.deepcopy(states), place)
                except ValueError as error:
                    skip(f"a run with it goes on with as many ranks as before only: {error}")
                try:
                    buffer.load_state_dict(state)
                except REFUSALS as error:
                    raise ContractBroken(
                        f"load_state_dict refuses what redeal() makes for {ranks} ranks from the states of 2: {error}"
                    ) from error
                dealt.append(buffer.state_dict())
            before, after = _elements(states), _elements(dealt)
            require(
                before == after,
                f"redeal() makes {after} numbers for {ranks} ranks from the {before} of 2: slots are lost or doubled",
            )

    def test_a_state_that_does_not_fit_is_refused(self) -> None:
        """A state of another size raises `ValueError`, so that `--resume` can say so, and changes nothing."""
        buffer, other = self.build(), self.build(seed=5)
        self.play(other, 3)
        state = other.state_dict()
        short = {key: _shorter(value) for key, value in state.items()}
        if _equal(state, short):
            skip("the state holds no tensor")
        require(
            self._refuses(buffer, short),
            "a state with one slot less is taken without a word: compare shapes, and raise ValueError",
        )
        for key in state:
            # Some may be shorter now and then; but where that is refused, nothing may have been taken before.
            self._refuses(self.build(), {**state, key: short[key]})

    def _refuses(self, buffer: Buffer, state: Mapping[str, Any]) -> bool:
        """Whether the state is refused; raises `ContractBroken` where it was taken in part."""
        chains, before = self._everything(buffer), copy.deepcopy(buffer.state_dict())
        try:
            buffer.load_state_dict(copy.deepcopy(state))
        except REFUSALS:
            same = _equal(tuple(chains), tuple(self._everything(buffer))) and _equal(before, buffer.state_dict())
            require(same, "a refused state was taken in part: look at all of it before anything is changed")
            return True
        return False

    def _by_slot(self, buffer: Buffer) -> Draw:
        """Every chain, in the order of the slots."""
        drawn = self.drawn(buffer, seed=42)
        order = drawn.slots.argsort()
        return Draw(*(item[order] for item in drawn))

    def _everything(self, buffer: Buffer) -> Draw:
        """The same chains, each time, if nothing changed them."""
        return self.drawn(buffer, seed=42)


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _elements(states: Any) -> int:
    """How many numbers the tensors of some states hold, together."""
    return sum(
        value.numel() for state in states for value in state.values() if isinstance(value, Tensor) and value.ndim
    )


def _shorter(value: Any) -> Any:
    return value[:-1] if isinstance(value, Tensor) and value.ndim else value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_equal(i, j) for i, j in zip(a, b, strict=True))
    return bool(a == b)
