"""`data.cache_dir`: shards are fetched once, kept whole within a limit, and shared by processes that may be killed."""

from __future__ import annotations

import multiprocessing
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ebmkit.data.images import all_images
from ebmkit.data.remote.folder import CacheFolder
from ebmkit.errors import BadData, DataError
from remote_server import Fault, serving
from shards_helper import numbers_of, options, stream, take, write_shards

SIZES = [20, 20, 20]
TOTAL = sum(SIZES)
PATTERN = "train-{000000..000002}.tar"
NAMES = [f"train-00000{place}.tar" for place in range(3)]
SIZE = 51_200
"""Bytes of each of these shards: tar pads them to a multiple of 10,240."""


class Other(NamedTuple):
    """Another process that decodes a set."""

    process: ForkProcess
    pipe: Connection

    def answer(self) -> tuple[list[int], list[str]]:
        """The numbers of its images, and its warnings."""
        assert self.pipe.poll(60)
        found: tuple[list[int], list[str]] = self.pipe.recv()
        self.process.join()
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def _decode(pipe: Connection, values: dict[str, Any]) -> None:
    told: list[str] = []
    pipe.send("begins")
    images = all_images(options(**values), warn=told.append)
    pipe.send((numbers_of(images.numpy()), told))


def other(**values: Any) -> Other:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_decode, args=(theirs, values))
    process.start()
    theirs.close()
    assert ours.recv() == "begins"
    return Other(process, ours)


def wait_for_a_part(kept: Path) -> None:
    until = time.monotonic() + 30
    while not any(path.suffix == ".part" for path in kept.glob("*")):
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    assert {Path(path).stat().st_size for path in write_shards(folder, SIZES)} == {SIZE}
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "kept"


def shards_in(kept: Path) -> dict[str, bytes]:
    """What is kept, by the readable part of the name; nothing else may lie there but the folder's own lock."""
    found = {}
    for path in kept.iterdir():
        if path.name != ".ebmkit-cache.lock":
            assert path.suffix == ".shard", path
            found[path.name.rpartition("-")[0]] = path.read_bytes()
    return found


def limit(size: float) -> float:
    return size / 2**30


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_pass_and_a_second_run_come_from_the_folder(source: Path, kept: Path, workers: int) -> None:
    with stream([str(source / name) for name in NAMES], workers=workers) as local:
        expected = take(local, 2 * TOTAL)
    told: list[str] = []
    with serving(source) as server:
        for _ in range(2):
            with stream(f"{server.url}/{PATTERN}", cache_dir=str(kept), workers=workers, told=told) as remote:
                assert take(remote, 2 * TOTAL) == expected
        assert [server.count(name) for name in NAMES] == [1, 1, 1]
        url = server.url
    with stream(f"{url}/{PATTERN}", cache_dir=str(kept), workers=workers, told=told) as remote:
        assert take(remote, TOTAL) == expected[:TOTAL], "the server is not needed any more"
    assert told == []
    assert shards_in(kept) == {name: (source / name).read_bytes() for name in NAMES}


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_only_whole_shards_are_kept_whatever_happens_on_the_way(
    tmp_path: Path, kept: Path, framing: str, suffix: str
) -> None:
    [path] = map(Path, write_shards(tmp_path, [20], suffix=suffix))
    size, told = path.stat().st_size, []
    faults = {path.name: [Fault(503), Fault(cut=size // 3), Fault(cut=size // 2), Fault(cut=0)]}
    with serving(tmp_path, framing=framing, faults=faults) as server:
        chosen = options(f"{server.url}/{path.name}", cache_dir=str(kept), retry_delay=0)
        assert numbers_of(all_images(chosen, warn=told.append).numpy()) == list(range(20))
    assert len(told) == 4
    assert shards_in(kept) == {path.name: path.read_bytes()}


def test_commands_are_kept_too_and_names_stay_in_the_folder(source: Path, kept: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    commands = [
        f"pipe:echo x >> {calls}; cat {source}/../source/{NAMES[0]}",
        f"pipe:echo x >> {calls}; cat '{source}/'*1.tar",
        f"pipe:echo x >> {calls}; cd {source}; cat ../source//../source/{NAMES[2]} #/../../../..",
        f"pipe:echo x >> {calls}; cat < {source / NAMES[0]} | cat #{'very long ' * 200}.tar",
    ]
    for _ in range(2):
        found = numbers_of(all_images(options(commands, cache_dir=str(kept))).numpy())
        assert found == [*range(60), *range(20)]
    assert calls.read_text().count("x") == 4
    assert len([path for path in kept.iterdir() if path.suffix == ".shard"]) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"source", "deep", "calls"}
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]


def test_the_shards_used_longest_ago_make_room_and_nothing_else_does(source: Path, kept: Path) -> None:
    kept.mkdir(parents=True)
    foreign = ["mine.tar", "train-000000.tar-0123.shard", ".hidden", f"x-{'0' * 32}.shard.bak"]
    for name in foreign:
        (kept / name).write_bytes(bytes(5000))
    (kept / f"folder-{'0' * 32}.shard").mkdir()
    (kept / f"link-{'0' * 32}.shard").symlink_to(kept / "mine.tar")
    before = {path.name for path in kept.iterdir()}

    def read(*places: int) -> None:
        for place in places:
            chosen = options(f"{server.url}/{NAMES[place]}", cache_dir=str(kept), cache_dir_limit=limit(2.5 * SIZE))
            assert numbers_of(all_images(chosen).numpy()) == list(range(20 * place, 20 * place + 20))
            ours = [path for path in kept.iterdir() if path.name not in before and path.suffix == ".shard"]
            assert sum(path.stat().st_size for path in ours) <= 2.5 * SIZE
            time.sleep(0.02)

    with serving(source) as server:
        read(0, 1, 0, 2)
        assert [server.count(name) for name in NAMES] == [1, 1, 1]
        read(0)
        assert server.count(NAMES[0]) == 1, "it was used after shard 1"
        read(1)
        assert server.count(NAMES[1]) == 2, "it had made room for shard 2"
    assert before <= {path.name for path in kept.iterdir()}


@pytest.mark.parametrize("there", [False, True])
def test_a_shard_that_is_being_read_is_never_removed(source: Path, kept: Path, there: bool) -> None:
    told: list[str] = []
    small = {"cache_dir": str(kept), "cache_dir_limit": limit(1.5 * SIZE)}
    with serving(source) as server:
        if there:
            all_images(options(f"{server.url}/{NAMES[0]}", **small))
        with stream(f"{server.url}/{NAMES[0]}", **small) as reader:
            # In the midst of the shard: its window of 7 images is filled.
            first = take(reader, 1)
            images = all_images(options(f"{server.url}/{NAMES[1]}", **small), warn=told.append)
            assert numbers_of(images.numpy()) == list(range(20, 40))
            assert list(shards_in(kept)) == [NAMES[0]]
            assert sorted(first + take(reader, 19)) == list(range(20))
        assert len(told) == 1
        assert f"{NAMES[1]} is streamed, not kept in data.cache_dir: shards that are in use fill" in told[0]
        all_images(options(f"{server.url}/{NAMES[1]}", **small), warn=told.append)
        assert list(shards_in(kept)) == [NAMES[1]], "it is free when nobody reads it any more"


@pytest.mark.parametrize("framing", ["length", "close"])
def test_what_is_larger_than_the_limit_is_streamed_and_told(source: Path, kept: Path, framing: str) -> None:
    told: list[str] = []
    with serving(source, framing=framing) as server:
        chosen = options(f"{server.url}/{PATTERN}", cache_dir=str(kept), cache_dir_limit=limit(SIZE - 1))
        assert numbers_of(all_images(chosen, warn=told.append).numpy()) == list(range(TOTAL))
    assert len(told) == 1, "each reason once"
    assert "is streamed, not kept in data.cache_dir: it is larger than data.cache_dir_limit" in told[0]
    assert shards_in(kept) == {}


def test_where_the_disk_is_full_shards_are_streamed(source: Path, kept: Path) -> None:
    """A limit on the size of files makes the system refuse to write on, as a full disk does."""
    import resource

    told: list[str] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(source, framing="close") as server:
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            images = all_images(options(f"{server.url}/{PATTERN}", cache_dir=str(kept)), warn=told.append)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
    assert numbers_of(images.numpy()) == list(range(TOTAL))
    assert len(told) == 1
    assert "File too large" in told[0]
    assert shards_in(kept) == {}


def test_a_folder_that_cannot_be_used_is_bad_input(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadData, match=r"data.cache_dir: .*file/kept cannot be used: Not a directory; name") as caught:
        all_images(options("http://127.0.0.1:9/x.tar", cache_dir=str(tmp_path / "file" / "kept")))
    assert caught.value.exit_code == 2
    # Local shards do not need it.
    images = all_images(options(str(source / NAMES[0]), cache_dir=str(tmp_path / "file" / "kept")))
    assert len(images) == 20


def test_processes_share_the_folder_and_fetch_each_shard_once(source: Path, kept: Path) -> None:
    with serving(source, faults={"*": [Fault(piece_delay=0.02)]}) as server:
        values = {"shards": f"{server.url}/{PATTERN}", "cache_dir": str(kept), "workers": 2}
        others = [other(**values) for _ in range(3)]
        assert [one.answer() for one in others] == [(list(range(TOTAL)), [])] * 3
        assert [server.count(name) for name in NAMES] == [1, 1, 1]
    assert shards_in(kept) == {name: (source / name).read_bytes() for name in NAMES}


def test_processes_that_share_too_small_a_folder_keep_to_its_limit(source: Path, kept: Path) -> None:
    with serving(source, faults={"*": [Fault(piece_delay=0.005)]}) as server:
        small = {"cache_dir": str(kept), "cache_dir_limit": limit(2 * SIZE)}
        others = [other(shards=f"{server.url}/{PATTERN}", workers=2, **small) for _ in range(2)]
        most = 0
        while not all(one.pipe.poll() for one in others):
            sizes = []
            for path in kept.glob("*"):
                try:
                    sizes.append(path.stat().st_size)
                except FileNotFoundError:
                    continue
            most = max(most, sum(sizes))
            time.sleep(0.005)
        assert [one.answer()[0] for one in others] == [list(range(TOTAL))] * 2
    assert 0 < most <= 2 * SIZE
    assert len(shards_in(kept)) <= 2


def test_a_killed_download_leaves_nothing_that_looks_whole_and_is_cleaned_later(source: Path, kept: Path) -> None:
    with serving(source, faults={NAMES[0]: [Fault(cut=30_000, pause=60)]}) as server:
        first = other(shards=f"{server.url}/{PATTERN}", cache_dir=str(kept))
        wait_for_a_part(kept)
        first.kill()
        assert {path.suffix for path in kept.iterdir()} == {".part", ".lock"}
        # Whoever uses the folder next cleans it, also without that shard.
        all_images(options(f"{server.url}/{NAMES[1]}", cache_dir=str(kept)))
        assert list(shards_in(kept)) == [NAMES[1]]
        images = all_images(options(f"{server.url}/{PATTERN}", cache_dir=str(kept)))
        assert numbers_of(images.numpy()) == list(range(TOTAL))
    assert shards_in(kept) == {name: (source / name).read_bytes() for name in NAMES}


def test_who_waits_takes_over_from_a_killed_download(source: Path, kept: Path) -> None:
    with serving(source, faults={NAMES[0]: [Fault(cut=30_000, pause=60)]}) as server:
        values = {"shards": f"{server.url}/{NAMES[0]}", "cache_dir": str(kept)}
        first = other(**values)
        wait_for_a_part(kept)
        second = other(**values)
        time.sleep(0.5)
        assert server.count(NAMES[0]) == 1, "the second one waits"
        first.kill()
        assert second.answer() == (list(range(20)), [])
    assert shards_in(kept) == {NAMES[0]: (source / NAMES[0]).read_bytes()}


def test_who_waits_without_progress_streams(source: Path, kept: Path) -> None:
    told: list[str] = []
    with serving(source, faults={NAMES[0]: [Fault(cut=30_000, pause=60)]}) as server:
        first = other(shards=f"{server.url}/{NAMES[0]}", cache_dir=str(kept))
        wait_for_a_part(kept)
        images = all_images(options(f"{server.url}/{NAMES[0]}", cache_dir=str(kept), timeout=1), warn=told.append)
        assert numbers_of(images.numpy()) == list(range(20))
        assert first.process.is_alive()
        first.kill()
    assert len(told) == 1
    assert "another process has been fetching it without progress" in told[0]


def test_a_failed_download_is_an_error_and_leaves_nothing(source: Path, kept: Path) -> None:
    with serving(source, faults={"*": [Fault(cut=9000)]}, ranges=False) as server:
        chosen = options(f"{server.url}/{NAMES[0]}", cache_dir=str(kept), retries=2, retry_delay=0)
        with pytest.raises(DataError, match=r"tried 3 times.*after 9,000 of 51,200 bytes"):
            all_images(chosen, warn=lambda text: None)
    assert shards_in(kept) == {}


def test_no_two_shards_share_a_name(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, 1)
    shards = ["http://a/x.tar", "http://b/x.tar", "http://a/x.tar?v=1", "pipe:cat x.tar", "http://a/%2e%2e/..", "pipe:"]
    paths = [folder.whole(shard) for shard in shards]
    assert len(set(paths)) == len(shards)
    assert all(path.parent == tmp_path and path.resolve().parent == tmp_path.resolve() for path in paths)
    assert [path.name.rpartition("-")[0] for path in paths] == ["x.tar", "x.tar", "x.tar", "x.tar", "http", "pipe"]
