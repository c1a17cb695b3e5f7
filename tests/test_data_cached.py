"""The decoded set on the device: completeness, order, resuming, budget."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from ebmkit.data.cached import CachedImages
from ebmkit.data.images import all_images, open_images
from ebmkit.data.source import ImageSource
from ebmkit.data.stream import ShardStream
from ebmkit.errors import BadData, DataError
from ebmkit.interfaces import Context
from shards_helper import REAL_DATA, members, numbers_of, options, take, tar_bytes, write_shards


def cached(
    shards: Any, batch_size: int, state: Any = None, told: list[str] | None = None, **changes: Any
) -> ImageSource:
    at = Context((3, 8, 8), 10, "cpu", changes.pop("rank", 0), changes.pop("world_size", 1), changes.pop("seed", 3))
    warn = (told if told is not None else []).append
    return open_images(options(shards, **changes), at, batch_size, state, warn)


@pytest.mark.parametrize("workers", [0, 2, 5])
def test_every_image_once_a_pass_in_a_new_order_whoever_decodes(tmp_path: Path, workers: int) -> None:
    source = cached(write_shards(tmp_path, [5, 1100, 1]), 158, workers=workers)
    assert isinstance(source, CachedImages)
    assert multiprocessing.active_children() == []
    passes = [take(source, 7) for _ in range(3)]
    assert all(sorted(found) == list(range(1106)) for found in passes)
    assert passes[0] != passes[1] != passes[2]
    assert passes[0] == take(cached(write_shards(tmp_path, [5, 1100, 1]), 158), 7)


def test_the_seed_sets_the_order(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [30])
    first, again, other = (take(cached(shards, 10, seed=seed), 6) for seed in (1, 1, 2))
    assert first == again != other


def test_batches_may_be_larger_than_the_set(tmp_path: Path) -> None:
    source = cached(write_shards(tmp_path, [3]), 7)
    found = take(source, 3)
    assert [sorted(found[begin : begin + 3]) for begin in range(0, 21, 3)] == [[0, 1, 2]] * 7


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_every_pass(tmp_path: Path, ranks: int) -> None:
    """11 images do not divide: the ranks then end a pass within one batch, and still no image comes twice in it."""
    shards = write_shards(tmp_path, [11])
    sources = [cached(shards, 1, rank=rank, world_size=ranks) for rank in range(ranks)]
    sequence = [label for _ in range(22) for source in sources for label in take(source, 1)]
    for begin in range(0, len(sequence) - 11, 11):
        assert sorted(sequence[begin : begin + 11]) == list(range(11))


def test_resuming_is_exact_at_every_batch_and_on_more_ranks(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [5, 6])
    source, states, labels = cached(shards, 4), [], []
    for _ in range(9):
        states.append(json.loads(json.dumps(source.state_dict())))
        labels.append(take(source, 1))
    for place, state in enumerate(states):
        resumed = cached(shards, 4, state)
        assert [take(resumed, 1) for _ in labels[place:]] == labels[place:]
    halves = [take(cached(shards, 2, states[3], rank=rank, world_size=2), 6) for rank in range(2)]
    assert [label for pair in zip(*halves, strict=True) for label in pair] == [
        label for batch in labels[3:] for label in batch
    ]


def test_another_set_or_a_streamed_run_goes_on_with_the_next_pass(tmp_path: Path) -> None:
    shards, told = write_shards(tmp_path, [6, 6]), []
    source = cached(shards, 4)
    take(source, 4)
    state = source.state_dict()
    assert cached(shards[:1], 4, state, told).state_dict()["seen"] == 2 * 6
    with cached(shards, 4, state, told, cache="off") as stream:
        assert stream.state_dict()["pass"] == 2
        take(stream, 1)
        streamed = stream.state_dict()
    assert cached(shards, 4, streamed, told).state_dict()["seen"] == 3 * 12
    assert len(told) == 3


def test_corrupt_samples_are_told_once_a_shard_and_counted(tmp_path: Path) -> None:
    told: list[str] = []
    source = cached(write_shards(tmp_path, [5, 5, 5], corrupt=[1, 2, 7]), 12, told=told, workers=2)
    assert sorted(take(source, 1)) == [0, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]
    assert source.skipped == 3
    assert len(told) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_usable_and_wrong_sizes_are_errors(tmp_path: Path, workers: int) -> None:
    shards = write_shards(tmp_path, [3, 3], corrupt=range(6))
    with pytest.raises(DataError, match=r"no usable image in 2 shards\n.*train-00000. *.*sample 0000"):
        cached(shards, 2, workers=workers)
    with pytest.raises(BadData, match=r"is 8x8 .* recipe says 9x9"):
        cached(write_shards(tmp_path, [3, 3]), 2, image_size=9, workers=workers)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("known", [True, False])
def test_a_set_over_the_limit_is_streamed_with_a_warning(tmp_path: Path, known: bool) -> None:
    from ebmkit.data import make_shards

    make_shards("digits", tmp_path, image_size=8, shard_size=600, workers=0)
    if not known:
        (tmp_path / "manifest.json").unlink()
    calls, told = [], []
    bytes_of_set = 1797 * 3 * 64
    for limit, kind in ((bytes_of_set, CachedImages), (bytes_of_set - 1, ShardStream)):
        calls.clear()
        chosen = options(f"{tmp_path}/*.tar", cache_limit=limit / 2**30)
        at = Context((3, 8, 8), 10)
        with open_images(chosen, at, 4, None, told.append, lambda done, total: calls.append((done, total))) as source:
            assert type(source) is kind
            assert source.next().images.shape == (4, 3, 8, 8)
        if kind is CachedImages:
            assert calls[-1] == (1797, 1797 if known else None)
        else:
            assert bool(calls) != known, "with a manifest the set is not read in vain"
    assert len(told) == 1
    assert "data.cache_limit" in told[0]


def test_all_images_come_in_the_order_of_the_shards(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [3, 1030, 4])
    whole = all_images(options(shards, workers=2))
    assert whole.dtype == torch.uint8
    assert numbers_of(whole.numpy()) == list(range(1037))
    assert numbers_of(all_images(options(shards), limit=5).numpy()) == list(range(5))
    assert len(all_images(options(shards), limit=5000)) == 1037


def test_grey_sets(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes(members([200])))
    source = cached(str(path), 1, channels=1)
    assert source.next().images.flatten().tolist() == [round(0.299 * 200 + 0.114 * 7)] * 64


@pytest.mark.skipif(not (REAL_DATA / "cifar10").is_dir(), reason="needs ../shared/data/cifar10")
def test_a_real_shard(tmp_path: Path) -> None:
    images = all_images(options(f"{REAL_DATA}/cifar10/train-000000.tar.gz", image_size=32))
    assert images.shape == (10_000, 3, 32, 32)
    mean = images.float().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=0.02), "CIFAR-10's known channel means"


@pytest.mark.parametrize(("total", "batch", "ranks"), [(7, 3, 1), (7, 16, 1), (5, 4, 3), (4, 2, 2), (1, 3, 2)])
def test_slices_of_a_pass_are_the_places_in_it(total: int, batch: int, ranks: int) -> None:
    from ebmkit.data.cached import _within

    for rank in range(ranks):
        for begin in range(rank, 5 * total * ranks + rank, ranks * batch):
            places = range(begin, begin + ranks * batch, ranks)
            found = []
            for number in range(places[0] // total, places[-1] // total + 1):
                found += [number * total + place for place in range(total)[_within(places, number * total, total)]]
            assert found == list(places)
