"""What happens to the data while a run reads them: shards that go or rot, workers that are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ebmkit.data.cached import decode_all
from ebmkit.data.images import open_images
from ebmkit.data.manifest import MANIFEST, Manifest, Shard
from ebmkit.data.reader import ShardSet
from ebmkit.errors import DataError
from shards_helper import context, options, stream, take, write_shards


def vanishes(path: Path) -> None:
    path.unlink()


def is_truncated(path: Path) -> None:
    # In place, as a file system that lost a part has it: whoever has it open sees that, too.
    os.truncate(path, 3 * 2048 + 700)


def is_emptied(path: Path) -> None:
    os.truncate(path, 0)


def turns_to_garbage(path: Path) -> None:
    with path.open("rb+") as file:
        file.write(random.Random(0).randbytes(path.stat().st_size))


FAULTS = [vanishes, is_truncated, is_emptied, turns_to_garbage]


def with_manifest(folder: Path, shards: list[str], each: int) -> None:
    """The manifest that `make-shards` would have left, as far as readers look at it."""
    listed = tuple(Shard(Path(shard).name, each, Path(shard).stat().st_size, "") for shard in shards)
    manifest = Manifest(each * len(shards), (8, 8), 3, "test", {}, listed)
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_shard_that_goes_bad_is_told_once_and_its_samples_are_counted(
    tmp_path: Path, fault: Callable[[Path], None], workers: int
) -> None:
    shards, told = write_shards(tmp_path, [12] * 4), list[str]()
    with_manifest(tmp_path, shards, 12)
    with stream(shards, 4, told=told, workers=workers, shuffle=3) as source:
        take(source, 3)
        fault(Path(shards[1]))
        # Many passes: every worker meets it, again and again.
        found = take(source, 90)
        # About nine passes, in each of which 9 or all 12 of its samples are missing.
        assert 60 < source.skipped < 180
    whole = set(range(48)) - set(range(12, 24))
    assert whole <= set(found)
    # What a worker had read before is still good; nothing comes of the bad shard long after.
    assert set(found[-48:]) - whole <= (set(range(12, 15)) if fault is is_truncated else set())
    assert len(told) == 1, told
    assert shards[1] in told[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_when_every_shard_goes_it_stops_with_their_names(tmp_path: Path, workers: int) -> None:
    shards = write_shards(tmp_path, [6, 6])
    with stream(shards, 2, workers=workers) as source:
        take(source, 2)
        for shard in shards:
            Path(shard).unlink()
        with pytest.raises(DataError, match="no usable image in 2 shards") as caught:
            take(source, 1000)
    assert "cannot be opened: No such file" in str(caught.value)


def test_a_cached_set_needs_its_shards_no_more(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [6, 6])
    with open_images(options(shards, cache="device"), context(), 4) as source:
        before = take(source, 3)
        Path(shards[0]).unlink()
        turns_to_garbage(Path(shards[1]))
        assert sorted(before + take(source, 3)) == sorted([*range(12)] * 2)


def test_a_shard_that_goes_while_the_cache_is_filled_is_counted(tmp_path: Path) -> None:
    shards, told = write_shards(tmp_path, [12] * 3), list[str]()
    with_manifest(tmp_path, shards, 12)
    shard_set = ShardSet.of(options(shards))
    Path(shards[1]).unlink()
    is_truncated(Path(shards[2]))
    decoded = decode_all(shard_set, workers=2, warn=told.append)
    assert decoded is not None
    assert sorted(decoded.labels.tolist()) == [*range(12), *range(24, 27)]
    assert decoded.skipped == 12 + 9
    assert [any(shard in text for text in told) for shard in shards] == [False, True, True]


def kill_a_worker(number: int = signal.SIGKILL) -> None:
    child = multiprocessing.active_children()[0]
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join(60)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_changes_no_image(tmp_path: Path, number: int) -> None:
    shards, told = write_shards(tmp_path, [40] * 5, corrupt=[3, 77]), list[str]()
    with stream(shards, 4, workers=2, shuffle=9) as source:
        undisturbed = take(source, 150)
    with stream(shards, 4, told=told, workers=2, shuffle=9) as source:
        found = take(source, 7)
        kill_a_worker(number)
        found += take(source, 24)
        state = source.state_dict()
        kill_a_worker(number)
        assert found + take(source, 119) == undisturbed
    assert sum("a data worker ended unexpectedly" in text for text in told) == 2
    with stream(shards, 4, state=state, workers=2, shuffle=9) as source:
        assert take(source, 119) == undisturbed[4 * 31 :]


def test_workers_that_are_always_killed_end_it(tmp_path: Path) -> None:
    with stream(write_shards(tmp_path, [40]), 2, workers=1) as source:
        source.next()

        def go_on() -> None:
            for _ in range(50):
                kill_a_worker()
                take(source, 20)

        with pytest.raises(DataError, match=r"4 times in a row; fewer data\.workers"):
            go_on()


def test_a_worker_killed_while_the_cache_is_filled_changes_no_image(tmp_path: Path) -> None:
    shards, told, killed = write_shards(tmp_path, [700] * 6, corrupt=[5]), list[str](), []
    shard_set = ShardSet.of(options(shards))
    plain = decode_all(shard_set, workers=0, warn=lambda text: None)

    def progress(done: int, total: int | None) -> None:
        if not killed:
            killed.append(done)
            kill_a_worker()

    decoded = decode_all(shard_set, workers=3, warn=told.append, progress=progress)
    assert plain is not None
    assert decoded is not None
    assert killed
    assert decoded.images.equal(plain.images)
    assert decoded.labels.equal(plain.labels)
    assert decoded.skipped == plain.skipped == 1
