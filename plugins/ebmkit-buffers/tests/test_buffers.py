"""The buffers: what is drawn, what is stored where, and how time steps move."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ebmkit_buffers.cyclic import Cyclic
from ebmkit_buffers.fresh import Fresh
from ebmkit_buffers.persistent import Persistent
from ebmkit_buffers.slots import share_of
from torch import Tensor

from ebmkit import Buffer, Context
from ebmkit.testing import BufferContract

SHAPE = (1, 2, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cyclic(size: int, time_steps: int, **context: Any) -> Cyclic:
    return Cyclic(Cyclic.Options(size=size), Context(SHAPE, time_steps, **context))


def persistent(size: int, time_steps: int = 1, reinitialize: float = 0.0) -> Persistent:
    return Persistent(Persistent.Options(size=size, reinitialize=reinitialize), Context(SHAPE, time_steps))


def contents(buffer: Buffer) -> tuple[Tensor, Tensor]:
    state = buffer.state_dict()
    return state["x"].clone(), state["t"].clone()


@pytest.mark.parametrize("buffer", [cyclic(12_000, 6), persistent(12_000, 6)], ids=["cyclic", "persistent"])
def test_initially_images_are_noise_and_time_steps_uniform(buffer: Buffer) -> None:
    x, t = contents(buffer)
    assert x.dtype == torch.float32
    assert t.dtype == torch.int64
    assert x.mean().item() == pytest.approx(0, abs=5 / math.sqrt(x.numel()))
    assert x.var().item() == pytest.approx(1, rel=5 * math.sqrt(2 / x.numel()))
    counts = torch.bincount(t, minlength=7)
    assert counts[0] == 0
    assert counts.sum() == 12_000
    assert len(counts) == 7
    assert (counts[1:] - 2000).abs().max().item() < 5 * math.sqrt(12_000 / 6)


@pytest.mark.parametrize("buffer", [cyclic(20, 4), persistent(20, 4)], ids=["cyclic", "persistent"])
def test_drawn_slots_are_different_and_any_slot_may_be_drawn(buffer: Buffer) -> None:
    seen = set()
    for seed in range(40):
        slots = buffer.draw(7, generator(seed)).slots.tolist()
        assert len(set(slots)) == 7
        seen |= set(slots)
    assert seen == set(range(20))
    assert sorted(buffer.draw(20, generator()).slots.tolist()) == list(range(20))
    with pytest.raises(ValueError, match="20 slots"):
        buffer.draw(21, generator())


def test_a_draw_is_the_slots_content_and_may_be_changed() -> None:
    buffer = cyclic(50, 5)
    x, t = contents(buffer)
    drawn = buffer.draw(30, generator())
    assert torch.equal(drawn.t, t[drawn.slots])
    going = drawn.t < 5
    assert going.any()
    assert torch.equal(drawn.x[going], x[drawn.slots][going])
    drawn.x.zero_()
    drawn.t.zero_()
    drawn.slots.zero_()
    after_x, after_t = contents(buffer)
    assert torch.equal(after_x, x)
    assert torch.equal(after_t, t)


def test_cyclic_starts_each_sweep_from_fresh_noise() -> None:
    buffer = cyclic(400, 2)
    x, t = contents(buffer)
    buffer.store(torch.arange(400), torch.full_like(x, 7.0))
    drawn = buffer.draw(400, generator())
    wrapped = drawn.t == 2
    assert torch.equal(wrapped, (t == 1)[drawn.slots])
    assert (drawn.x[~wrapped] == 7).all()
    noise = drawn.x[wrapped]
    assert noise.mean().item() == pytest.approx(0, abs=5 / math.sqrt(noise.numel()))
    assert noise.var().item() == pytest.approx(1, rel=5 * math.sqrt(2 / noise.numel()))
    again = buffer.draw(400, generator(1))
    first = noise[drawn.slots[wrapped].argsort()]
    second = again.x[again.t == 2][again.slots[again.t == 2].argsort()]
    assert not torch.equal(first, second)


def test_cyclic_counts_every_slot_down_and_wraps_to_the_start() -> None:
    time_steps = 3
    buffer = cyclic(10, time_steps)
    _, start = contents(buffer)
    for turn in range(1, 8):
        drawn = buffer.draw(10, generator(turn))
        buffer.store(drawn.slots, drawn.x)
        _, t = contents(buffer)
        assert torch.equal(t, (start - 1 - turn) % time_steps + 1)


def test_the_length_of_a_chain_is_what_it_takes() -> None:
    """Played: the mean number of steps between two starts of a slot, with a third of the slots drawn at each."""
    buffer, batch, steps = cyclic(30, 4), 10, 2000
    random, starts = torch.Generator().manual_seed(0), 0
    for _ in range(steps):
        drawn = buffer.draw(batch, random)
        starts += int((drawn.t == 4).sum())
        buffer.store(drawn.slots, drawn.x)
    expected = Cyclic.chain_length(buffer.options, buffer.context, batch)
    assert expected == 12
    assert steps * 30 / starts == pytest.approx(expected, rel=0.02)


def test_cyclic_stores_into_the_drawn_slots_only() -> None:
    buffer = cyclic(12, 4)
    x, t = contents(buffer)
    slots = torch.tensor([9, 2, 5])
    refined = torch.arange(3.0).view(3, 1, 1, 1).expand(3, *SHAPE)
    buffer.store(slots, refined)
    after_x, after_t = contents(buffer)
    assert torch.equal(after_x[slots], refined)
    assert after_t[slots].tolist() == [value - 1 or 4 for value in t[slots].tolist()]
    rest = [i for i in range(12) if i not in slots.tolist()]
    assert torch.equal(after_x[rest], x[rest])
    assert torch.equal(after_t[rest], t[rest])


def test_cyclic_with_a_single_time_step_always_starts_from_noise() -> None:
    buffer = cyclic(8, 1)
    buffer.store(torch.arange(8), torch.full((8, *SHAPE), 5.0))
    drawn = buffer.draw(8, generator())
    assert (drawn.t == 1).all()
    assert not (drawn.x == 5).any()


@pytest.mark.parametrize(("reinitialize", "expected"), [(0.0, 0.0), (1.0, 1.0), (0.3, 0.3)])
def test_persistent_starts_again_as_often_as_it_should(reinitialize: float, expected: float) -> None:
    buffer = persistent(5000, 4, reinitialize)
    _, t = contents(buffer)
    buffer.store(torch.arange(5000), torch.full((5000, *SHAPE), 9.0))
    drawn = buffer.draw(4000, generator())
    fresh = (drawn.x != 9).flatten(1).all(1)
    assert torch.equal(fresh, (drawn.x != 9).flatten(1).any(1)), "a chain starts again as a whole"
    assert fresh.float().mean().item() == pytest.approx(expected, abs=5 * math.sqrt(0.25 / 4000) * (0 < expected < 1))
    assert torch.equal(drawn.t, t[drawn.slots])
    assert torch.equal(contents(buffer)[1], t), "time steps are kept"
    if reinitialize:
        values = drawn.x[fresh]
        assert values.var().item() == pytest.approx(1, rel=5 * math.sqrt(2 / values.numel()))


def test_persistent_keeps_chains_and_their_time_steps() -> None:
    buffer = persistent(10, 5)
    x, t = contents(buffer)
    buffer.store(torch.tensor([3, 7]), torch.ones(2, *SHAPE))
    after_x, after_t = contents(buffer)
    assert torch.equal(after_t, t)
    assert (after_x[[3, 7]] == 1).all()
    rest = [0, 1, 2, 4, 5, 6, 8, 9]
    assert torch.equal(after_x[rest], x[rest])


@pytest.mark.parametrize("make", [cyclic, persistent])
def test_a_restored_buffer_goes_on_bit_for_bit(make: Any) -> None:
    buffer = make(16, 4)
    for turn in range(5):
        drawn = buffer.draw(6, generator(turn))
        buffer.store(drawn.slots, drawn.x * 1.5)
    state = {name: value.clone() for name, value in buffer.state_dict().items()}
    copy = make(16, 4)
    copy.load_state_dict(state)
    for name, value in state.items():
        assert torch.equal(copy.state_dict()[name], value)
    state["x"].zero_()
    for one, other in zip(buffer.draw(16, generator(9)), copy.draw(16, generator(9)), strict=True):
        assert torch.equal(one, other)


def test_a_state_of_another_shape_is_refused_and_changes_nothing() -> None:
    buffer = cyclic(8, 3)
    x, t = contents(buffer)
    other = cyclic(9, 3).state_dict()
    with pytest.raises(ValueError, match=r"shape \(9, 1, 2, 3\), expected \(8, 1, 2, 3\)"):
        buffer.load_state_dict(other)
    with pytest.raises(ValueError, match="buffer t"):
        buffer.load_state_dict({"x": torch.zeros(8, *SHAPE), "t": other["t"]})
    assert torch.equal(contents(buffer)[0], x)
    assert torch.equal(contents(buffer)[1], t)


DTYPES = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8}
"""Stored types, and the largest relative error of rounding to them."""


def stored_as(dtype: str, kind: str, size: int = 64) -> Buffer:
    if kind == "cyclic":
        return Cyclic(Cyclic.Options(size=size, dtype=dtype), Context(SHAPE, 3))
    return Persistent(Persistent.Options(size=size, dtype=dtype, reinitialize=0), Context(SHAPE, 3))


@pytest.mark.parametrize("kind", ["cyclic", "persistent"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_images_are_rounded_to_the_stored_type_and_drawn_in_float32(dtype: str, kind: str) -> None:
    buffer, error = stored_as(dtype, kind), DTYPES[dtype]
    assert contents(buffer)[0].dtype == getattr(torch, dtype)
    # Of all sizes in which numbers of 16 bits have all of their digits.
    x = torch.randn(64, *SHAPE, generator=generator(1)) * torch.logspace(-3, 4, 64).view(-1, 1, 1, 1)
    x = x.sign() * x.abs().clamp(1e-4, 6e4)
    buffer.store(torch.arange(64), x)
    drawn = buffer.draw(64, generator())
    going = drawn.t < 3 if kind == "cyclic" else torch.ones(64, dtype=torch.bool)
    assert going.sum() > 20
    assert drawn.x.dtype == torch.float32
    relative = (drawn.x[going] / x[drawn.slots][going] - 1).abs().max().item()
    # Measured in float32, whose own rounding adds 2^-23.
    assert error / 2 <= relative <= error + 2**-22


def test_sixteen_bits_take_half_of_the_memory() -> None:
    full, half = contents(cyclic(100, 3))[0], contents(stored_as("float16", "cyclic", 100))[0]
    assert half.nbytes * 2 == full.nbytes
    assert torch.equal(half, full.half()), "it begins with the same noise, rounded"


def test_what_is_too_large_for_float16_becomes_infinite_and_not_in_the_other_types() -> None:
    for dtype in DTYPES:
        buffer = stored_as(dtype, "persistent")
        buffer.store(torch.arange(64), torch.full((64, *SHAPE), -7e4))
        x = buffer.draw(64, generator()).x
        assert bool((x == -torch.inf).all()) == (dtype == "float16")
        assert bool(x.isfinite().all()) == (dtype != "float16")


def test_a_state_of_another_type_is_refused_and_changes_nothing() -> None:
    buffer, other = stored_as("bfloat16", "cyclic"), stored_as("float16", "cyclic")
    other.store(torch.arange(64), torch.zeros(64, *SHAPE))
    before = contents(buffer)
    with pytest.raises(ValueError, match="buffer x is float16, expected bfloat16"):
        buffer.load_state_dict(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before, contents(buffer), strict=True))


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_the_ranks_parts_add_up_to_the_size(size: int, world_size: int) -> None:
    parts = [share_of(size, Context(SHAPE, 1, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sum(parts) == size
    assert max(parts) - min(parts) <= 1


def test_ranks_and_seeds_begin_with_different_noise_and_the_same_ones_with_the_same() -> None:
    first = contents(cyclic(8, 3, rank=0, world_size=2, seed=5))[0]
    assert torch.equal(first, contents(cyclic(8, 3, rank=0, world_size=2, seed=5))[0])
    assert not torch.equal(first, contents(cyclic(8, 3, rank=1, world_size=2, seed=5))[0])
    assert not torch.equal(first, contents(cyclic(8, 3, rank=0, world_size=2, seed=6))[0])
    assert contents(cyclic(4, 3, seed=2**63 - 1))[0].isfinite().all()


def test_fresh_chains_are_noise_at_the_only_time_step() -> None:
    buffer = Fresh(Fresh.Options(), Context(SHAPE, 1))
    drawn = buffer.draw(2000, generator())
    assert drawn.x.shape == (2000, *SHAPE)
    assert (drawn.t == 1).all()
    assert drawn.x.var().item() == pytest.approx(1, rel=5 * math.sqrt(2 / drawn.x.numel()))
    buffer.store(drawn.slots, torch.full_like(drawn.x, 3.0))
    assert not (buffer.draw(2000, generator(1)).x == 3).any()
    assert buffer.state_dict() == {}
    buffer.load_state_dict({})


def test_fresh_needs_a_single_time_step() -> None:
    assert Fresh.problems(Fresh.Options(), Context(SHAPE, 1)) == []
    (problem,) = Fresh.problems(Fresh.Options(), Context(SHAPE, 10))
    assert problem.startswith("use: 'fresh' needs time_steps = 1, not 10")
    assert Cyclic.problems(Cyclic.Options(), Context(SHAPE, 10)) == []


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_reinitialization_is_a_probability(value: float) -> None:
    with pytest.raises(ValueError, match="reinitialize"):
        Persistent.Options(reinitialize=value)


class TestCyclicContract(BufferContract):
    component = Cyclic


class TestCyclicFloat16Contract(BufferContract):
    component = Cyclic
    options = {"dtype": "float16"}


class TestCyclicBfloat16Contract(BufferContract):
    component = Cyclic
    options = {"dtype": "bfloat16"}


class TestPersistentContract(BufferContract):
    component = Persistent


class TestPersistentWithoutRestartsContract(BufferContract):
    component = Persistent
    options = {"reinitialize": 0.0}


class TestPersistentFloat16Contract(BufferContract):
    component = Persistent
    options = {"dtype": "float16"}


class TestPersistentBfloat16Contract(BufferContract):
    component = Persistent
    options = {"dtype": "bfloat16"}


class TestFreshContract(BufferContract):
    component = Fresh
