"""Shards and samples that are not as they should be: used as far as possible, counted, told; never a hang."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ebmkit.errors import BadData, DataError
from shards_helper import (
    context,
    encoded,
    members,
    picture,
    stream,
    take,
    tar_bytes,
    write_shards,
)


def test_corrupt_samples_are_skipped_counted_and_told_once_a_shard(tmp_path: Path) -> None:
    shards, told = write_shards(tmp_path, [6, 6], corrupt=[1, 2, 7]), []
    with stream(shards, told=told) as source:
        assert sorted(take(source, 9)) == [0, 3, 4, 5, 6, 8, 9, 10, 11]
        take(source, 27)
        assert source.skipped >= 3 * 3
    assert len(told) == 2
    assert all(f"train-00000{place}.tar: sample 0000" in text for place, text in enumerate(sorted(told)))


def test_corrupt_jpeg_and_samples_without_image(tmp_path: Path) -> None:
    whole = encoded(picture(5), "JPEG", quality=100, subsampling=0)
    found = [("a.JPG", whole), ("b.jpg", whole[:-30]), ("c.txt", b"x"), ("d.jpeg", whole), ("d.cls", b"nonsense")]
    path, told = tmp_path / "x.tar", []
    path.write_bytes(tar_bytes(found))
    with stream(str(path), told=told) as source:
        batches = [source.next() for _ in range(2)]
        source.next()
        assert 2 <= source.skipped <= 4, "two in each pass"
    assert [int(batch.labels) for batch in batches] == [-1, -1]
    assert len(told) == 1


@pytest.mark.parametrize("cut", ["in a sample", "between samples", "in the last zeros"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_shard_that_was_cut_short_is_used_and_told(tmp_path: Path, cut: str, packed: bool) -> None:
    suffix = ".tar.gz" if packed else ".tar"
    path = Path(write_shards(tmp_path, [20], suffix=suffix)[0])
    data, told = path.read_bytes(), []
    # Every sample takes 4 blocks of 512 bytes: two headers, two contents.
    plain = {"in a sample": 10 * 2048 + 700, "between samples": 10 * 2048, "in the last zeros": 20 * 2048}[cut]
    path.write_bytes(data[: len(data) * plain // 41_000 if packed else plain])
    with stream(str(path), told=told) as source:
        found = set(take(source, 40))
    assert len(told) == 1
    whole = len(found)
    assert f"damaged or cut short after {whole} whole samples" in told[0]
    assert found == set(range(whole))
    if not packed:
        # The last sample is left out, since it may lack a part.
        assert whole == {"in a sample": 10, "between samples": 9, "in the last zeros": 19}[cut]
    else:
        assert whole >= {"in a sample": 5, "between samples": 5, "in the last zeros": 15}[cut]


def test_damage_of_gzip_is_noticed_at_its_checksum(tmp_path: Path) -> None:
    path = Path(write_shards(tmp_path, [4], suffix=".tar.gz")[0])
    data, told = bytearray(path.read_bytes()), []
    data[-6] ^= 1
    path.write_bytes(data)
    with stream(str(path), told=told) as source:
        assert set(take(source, 8)) == {0, 1, 2}
    assert "after 3 whole samples: CRC check failed" in told[0]


def test_a_shard_that_vanishes_is_told_and_the_others_are_used(tmp_path: Path) -> None:
    shards, told = write_shards(tmp_path, [3, 3]), []
    with stream(shards, told=told) as source:
        Path(shards[1]).unlink()
        assert set(take(source, 6)) == {0, 1, 2}
    assert len(told) == 1
    assert f"shard {shards[1]} cannot be opened: No such file" in told[0]


def test_counts_are_held_against_the_manifest(tmp_path: Path) -> None:
    from ebmkit.data import make_shards

    make_shards("digits", tmp_path, image_size=8, shard_size=6, limit=12, workers=0)
    shards, told = f"{tmp_path}/*.tar", []
    with stream(shards, told=told) as source:
        [source.next() for _ in range(12)]
    assert told == []
    (tmp_path / "train-000001.tar").write_bytes(tar_bytes(members(range(4))))
    with stream(shards, told=told) as source:
        [source.next() for _ in range(12)]
    assert len(told) == 1
    assert "train-000001.tar has 4 samples, its manifest.json says 6" in told[0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "case", ["all corrupt", "no samples", "empty file", "no command", "failed command", "no server"]
)
def test_nothing_usable_is_an_error_not_a_hang(tmp_path: Path, case: str, workers: int) -> None:
    path = tmp_path / "train-000000.tar"
    content = {"all corrupt": tar_bytes(members(range(5), range(5))), "no samples": tar_bytes([])}
    path.write_bytes(content.get(case, b""))
    remote = {
        "no command": "pipe:no-such-program",
        "failed command": "pipe:exit 3",
        "no server": "http://127.0.0.1:9/x",
    }
    shards = remote.get(case, str(path))
    message = f"shard {shards} cannot be read" if case in remote else "no usable image in 1 shard"
    begun = time.monotonic()
    with stream(shards, workers=workers, retry_delay=0) as source, pytest.raises(DataError, match=message) as caught:
        source.next()
    assert time.monotonic() - begun < 20
    clue = {"all corrupt": "sample 0000", "no samples": "hold no samples", "failed command": "exit status 3"}
    clue |= {"no command": "not found", "no server": "Connection refused"}
    assert clue.get(case, shards) in str(caught.value)


def test_one_usable_image_among_corrupt_ones_is_enough(tmp_path: Path) -> None:
    """Whichever worker reads it: a worker that only meets corrupt samples in one pass must not give up."""
    with stream(write_shards(tmp_path, [4], corrupt=[0, 1, 3]), workers=2) as source:
        assert take(source, 6) == [2] * 6


def test_a_wrong_size_is_an_error_with_both_sizes_and_advice(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes([("k1.png", encoded(picture(1, (9, 12))))]))
    for workers in (0, 1):
        with stream(str(path), workers=workers) as source, pytest.raises(BadData, match="12x9") as caught:
            source.next()
        for part in (str(path), "k1", "8x8", "wrong_size", "make-shards"):
            assert part in str(caught.value)
    with stream(str(path), wrong_size="resize") as source:
        assert source.next().images.shape == (1, 3, 8, 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_shard_never_stops_a_run_however_often_chance_deals_it_to_one_worker(
    workers: int, tmp_path: Path
) -> None:
    shards = write_shards(tmp_path, [6, 6], corrupt=range(6))
    for seed in range(3):
        with stream(shards, 3, context(seed=seed), workers=workers) as source:
            # With two workers and two shards a pass deals the bad one to the same worker half of the time.
            assert set(take(source, 60)) <= set(range(6, 12))
