"""Who reads what: in a pass each sample has exactly one reader, whatever the number of shards, ranks and workers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmkit.data.cached import CachedImages, Decoded
from ebmkit.data.roles import share
from ebmkit.interfaces import Context
from shards_helper import context, stream, take, write_shards


def read(sizes: list[int], seed: int, pass_number: int, roles: int) -> list[list[tuple[str, int]]]:
    """What each role reads, as (shard, number of the sample)."""
    shards = {f"train-{place}.tar": size for place, size in enumerate(sizes)}
    found = []
    for role in range(roles):
        mine = share(list(shards), seed, pass_number, role, roles)
        found.append([(name, n) for name in mine.shards for n in range(shards[name]) if n % mine.stride == mine.phase])
    return found


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    seed=st.integers(0, 2**63 - 1),
    pass_number=st.integers(0, 50),
    ranks=st.integers(1, 6),
    workers=st.integers(1, 5),
)
@settings(max_examples=300, deadline=None)
def test_in_a_pass_each_sample_has_exactly_one_reader(
    sizes: list[int], seed: int, pass_number: int, ranks: int, workers: int
) -> None:
    counts = Counter(sample for part in read(sizes, seed, pass_number, ranks * workers) for sample in part)
    expected = [(f"train-{place}.tar", number) for place, size in enumerate(sizes) for number in range(size)]
    assert counts == dict.fromkeys(expected, 1)


@given(
    shards=st.integers(1, 12),
    ranks=st.integers(1, 6),
    workers=st.integers(1, 5),
    seed=st.integers(0, 1000),
    pass_number=st.integers(0, 9),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_every_role_has_work_and_fair_shares(
    shards: int, ranks: int, workers: int, seed: int, pass_number: int, data: st.DataObject
) -> None:
    """Where each shard, all of one size, has a sample for each of its sharers."""
    roles = ranks * workers
    sharers = -(-roles // shards)
    size = data.draw(st.integers(sharers, sharers + 30))
    parts = [len(part) for part in read([size] * shards, seed, pass_number, roles)]
    assert min(parts) > 0
    if shards >= roles:
        assert max(parts) - min(parts) <= size
    else:
        assert max(parts) <= -(-size // (roles // shards))


@given(
    total=st.integers(1, 60),
    ranks=st.integers(1, 6),
    batch=st.integers(1, 9),
    seed=st.integers(0, 1000),
    begin=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_ranks_share_a_cached_set_without_overlap(total: int, ranks: int, batch: int, seed: int, begin: int) -> None:
    """All ranks' batches together, image by image, are whole passes one after the other; every rank gives as many."""
    import torch

    labels = torch.arange(total)
    decoded = Decoded(torch.zeros(total, 1, 1, 1, dtype=torch.uint8), labels, 0)
    told: list[str] = []
    sources = [
        CachedImages(decoded, ["x.tar"], Context((1, 1, 1), 1, "cpu", rank, ranks, seed), batch, None, told.append)
        for rank in range(ranks)
    ]
    for source in sources:
        for _ in range(begin):
            source.next()
    steps = -(-3 * total // (ranks * batch))
    sequence: list[int] = []
    for _ in range(steps):
        together = [source.next().labels.tolist() for source in sources]
        assert {len(part) for part in together} == {batch}
        sequence += [label for turn in zip(*together, strict=True) for label in turn]
    offset = -(begin * ranks * batch) % total
    for first in range(offset, len(sequence) - total + 1, total):
        assert sorted(sequence[first : first + total]) == list(range(total))


@pytest.mark.parametrize(("sizes", "ranks", "workers"), [([7], 2, 3), ([5, 1, 8], 3, 2), ([4, 9, 2, 6, 3], 2, 2)])
def test_real_streams_give_each_image_of_a_pass_once(
    tmp_path: Path, sizes: list[int], ranks: int, workers: int
) -> None:
    shards = write_shards(tmp_path, sizes)
    passes: dict[int, Counter[int]] = {0: Counter(), 1: Counter()}
    for rank in range(ranks):
        with stream(shards, 1, context(rank, ranks), workers=workers) as source:
            at = [0] * workers
            while min(at) < 2:
                role = source.state_dict()["next"]
                labels = take(source, 1)
                at[role] = source.state_dict()["roles"][role]["pass_number"]
                if at[role] in passes:
                    passes[at[role]].update(labels)
    for counts in passes.values():
        assert counts == dict.fromkeys(range(sum(sizes)), 1)
