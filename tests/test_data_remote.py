"""Shards over HTTP: every failure on the way leaves the images and their order as they are from local files."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ebmkit.data.images import all_images, open_images
from ebmkit.errors import BadData, DataError
from ebmkit.options import DataOptions
from remote_server import Fault, ShardServer, serving
from run_helpers import run_cli, tiny_table, write_recipe
from shards_helper import context, numbers_of, options, stream, take, tar_bytes, write_shards

SIZES = [20, 9, 14]
TOTAL = sum(SIZES)
PATTERN = "train-{000000..000002}.tar"
SECOND = "train-000001.tar"


@pytest.fixture
def expected(tmp_path: Path) -> list[int]:
    """The labels of one pass and a bit, from local files."""
    with stream(write_shards(tmp_path, SIZES)) as source:
        return take(source, TOTAL + 10)


def received(server: ShardServer, told: list[str] | None = None, **changes: Any) -> list[int]:
    with stream(f"{server.url}/{PATTERN}", told=told, **({"retry_delay": 0, "timeout": 5} | changes)) as source:
        return take(source, TOTAL + 10)


@pytest.mark.parametrize("workers", [0, 1])
def test_passing_errors_are_tried_again_and_told(tmp_path: Path, expected: list[int], workers: int) -> None:
    told: list[str] = []
    with serving(tmp_path, faults={SECOND: [Fault(503), Fault(500)]}) as server:
        assert received(server, told, workers=workers) == expected
    assert len(told) == 2
    assert f"shard {server.url}/{SECOND}: HTTP 503 Service Unavailable; retry 1 of 5" in told[0]
    assert "HTTP 500" in told[1]
    assert "retry 2 of 5" in told[1]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("cut", [0, 1, 700, 5_000])
def test_a_cut_connection_costs_no_image_and_gives_none_twice(
    tmp_path: Path, framing: str, ranges: bool, suffix: str, cut: int
) -> None:
    write_shards(tmp_path, SIZES, suffix=suffix)
    size, told = (tmp_path / f"train-000000{suffix}").stat().st_size, []
    cut = min(cut, size - 100)
    cuts = [Fault(cut=cut), Fault(cut=cut + 90)]
    with serving(tmp_path, ranges=ranges, framing=framing, faults={f"train-000000{suffix}": cuts}) as server:
        shards = [f"{server.url}/train-{place:06d}{suffix}" for place in range(3)]
        images = all_images(options(shards, retry_delay=0, timeout=5), warn=told.append)
    assert numbers_of(images.numpy()) == list(range(TOTAL))
    assert len(told) == 2, "one sentence for each cut"
    asked = [request.range for request in server.requests if "000000" in request.name]
    assert len(asked) == 3
    if framing != "close" and cut:
        assert asked[1:] == [f"bytes={cut}-", f"bytes={cut + 90 if ranges else max(cut, cut + 90)}-"]


def test_a_long_shard_may_meet_more_failures_than_retries(tmp_path: Path) -> None:
    """Each after more than a MiB of progress; without progress the count goes on."""
    path = tmp_path / "big.tar"
    path.write_bytes(tar_bytes([(f"{n}.txt", bytes(900_000)) for n in range(6)]))
    size, told = path.stat().st_size, []
    faults = [Fault(cut=cut) for cut in range(1_200_000, size, 1_200_000)]
    assert len(faults) == 4
    with (
        serving(tmp_path, faults={"big.tar": faults}) as server,
        pytest.raises(DataError, match="no usable image"),
    ):
        all_images(options(f"{server.url}/big.tar", retry_delay=0, retries=1), warn=told.append)
    assert sum("retry 1 of 1" in text for text in told) == 4


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(tmp_path: Path, expected: list[int]) -> None:
    told: list[str] = []
    with serving(tmp_path, faults={SECOND: [Fault(piece_delay=0.15)]}) as server:
        assert received(server, told, timeout=1.5) == expected
        assert told == []
        server.faults[SECOND] = [Fault(cut=3000, pause=30), Fault(piece_delay=30)]
        begun = time.monotonic()
        assert received(server, told, timeout=1.5) == expected
        assert time.monotonic() - begun < 20
    assert len(told) == 2
    assert all("no byte came for 1.5 s" in text for text in told)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_refusals_that_last_are_not_tried_again(tmp_path: Path, status: int) -> None:
    write_shards(tmp_path, SIZES)
    told: list[str] = []
    with (
        serving(tmp_path, faults={"*": [Fault(status)]}) as server,
        stream(f"{server.url}/{SECOND}", told=told) as source,
        pytest.raises(BadData, match=f"{SECOND} cannot be read: HTTP {status} .*check its name") as caught,
    ):
        source.next()
    assert caught.value.exit_code == 2
    assert server.count(SECOND) == 1
    assert told == []


def first_pass(chosen: DataOptions) -> list[int]:
    with open_images(chosen, context(), 1, None, lambda text: None) as source:
        return take(source, TOTAL)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["off", "device"])
def test_after_the_last_retry_there_is_an_error_that_says_all(tmp_path: Path, workers: int, cache: str) -> None:
    write_shards(tmp_path, SIZES)
    with serving(tmp_path, faults={SECOND: [Fault(502)] * 99}) as server:
        chosen = options(f"{server.url}/{PATTERN}", cache=cache, workers=workers, retries=2, retry_delay=0)
        with pytest.raises(DataError, match=f"{SECOND} cannot be read: tried 3 times, .*: HTTP 502") as caught:
            first_pass(chosen)
    assert caught.value.exit_code == 1
    assert "--resume" in str(caught.value)


def test_no_retries_means_one_attempt(tmp_path: Path) -> None:
    write_shards(tmp_path, SIZES)
    with (
        serving(tmp_path, faults={"*": [Fault(503)]}) as server,
        pytest.raises(DataError, match="tried once"),
    ):
        all_images(options(f"{server.url}/{SECOND}", retries=0))
    assert server.count(SECOND) == 1


def test_delays_double_and_retry_after_is_heeded(tmp_path: Path, expected: list[int]) -> None:
    faults = [Fault(503), Fault(503), Fault(503), Fault(429, {"Retry-After": "1"})]
    with serving(tmp_path, faults={SECOND: faults}) as server:
        assert received(server, retry_delay=0.1) == expected
    times = [request.at for request in server.requests if request.name == SECOND][:5]
    waits = [after - before for before, after in itertools.pairwise(times)]
    for wait, least in zip(waits, [0.08, 0.16, 0.32, 1.0], strict=True):
        assert least <= wait < least * 1.6 + 2


def test_a_server_that_dies_ends_the_run_and_a_new_one_lets_it_go_on(tmp_path: Path, expected: list[int]) -> None:
    with contextlib.ExitStack() as alive:
        server = alive.enter_context(serving(tmp_path))
        source = alive.enter_context(stream(f"{server.url}/{PATTERN}", retries=2, retry_delay=0))
        found, state = take(source, 5), source.state_dict()
        port = int(server.url.rpartition(":")[2])
        server.faults["*"] = [Fault(cut=0)]
    begun = time.monotonic()
    with (
        stream(f"{server.url}/{PATTERN}", state=state, retries=2, retry_delay=0) as source,
        pytest.raises(DataError, match="tried 3 times, the last time: Connection refused"),
    ):
        take(source, TOTAL)
    assert time.monotonic() - begun < 5
    told: list[str] = []
    with serving(tmp_path, port=port), stream(f"{server.url}/{PATTERN}", state=state, told=told) as source:
        assert found + take(source, TOTAL + 5) == expected
    assert told == []


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_in_the_midst_is_exact_and_does_not_ask_where_the_shards_are(tmp_path: Path, workers: int) -> None:
    shards = write_shards(tmp_path, SIZES)
    with stream(shards, 3, workers=workers) as source:
        take(source, 4)
        state, rest = source.state_dict(), take(source, 15)
    told: list[str] = []
    with serving(tmp_path, faults={SECOND: [Fault(cut=1500)]}) as server:
        remote = f"{server.url}/{PATTERN}"
        with stream(remote, 3, state=state, workers=workers, told=told, retry_delay=0) as source:
            assert take(source, 15) == rest
    assert any("retry" in text for text in told)
    assert not any("next pass" in text for text in told)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_shard_that_changes_between_two_attempts_is_an_error(tmp_path: Path, ranges: bool) -> None:
    path = Path(write_shards(tmp_path, [9])[0])
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    with (
        serving(tmp_path, ranges=ranges, faults={path.name: [Fault(cut=2000)]}) as server,
        stream(f"{server.url}/{path.name}", retry_delay=0.4) as source,
    ):
        # During the pause before the retry.
        threading.Timer(0.2, path.write_bytes, [data]).start()
        with pytest.raises(BadData, match="content changed meanwhile"):
            source.next()


def test_a_shard_that_is_short_on_the_server_is_damaged_not_retried(tmp_path: Path) -> None:
    path = Path(write_shards(tmp_path, [9])[0])
    path.write_bytes(path.read_bytes()[:6_500])
    told: list[str] = []
    with serving(tmp_path) as server:
        images = all_images(options(f"{server.url}/{path.name}"), warn=told.append)
        assert server.count(path.name) == 1
        server.framing = "close"
        # Without a length it is asked for once more: the connection might have been cut.
        assert len(all_images(options(f"{server.url}/{path.name}", retry_delay=0), warn=told.append)) == len(images)
        assert server.count(path.name) == 3
    assert numbers_of(images.numpy()) == [0, 1]
    assert ["damaged or cut short after 2" in text for text in told] == [True, False, True]


def test_redirections_are_followed_to_servers_only(tmp_path: Path) -> None:
    path = Path(write_shards(tmp_path, [9])[0])
    moved = Fault(302, {"Location": f"/{path.name}"})
    faults = {"a.tar": [moved] * 2, path.name: [Fault(cut=3000)], "b.tar": [Fault(302, {"Location": f"file://{path}"})]}
    with serving(tmp_path, faults=faults) as server:
        images = all_images(options(f"{server.url}/a.tar", retry_delay=0), warn=lambda text: None)
        assert numbers_of(images.numpy()) == list(range(9))
        assert [request.range for request in server.requests if request.name == path.name] == [None, "bytes=3000-"]
        with pytest.raises(BadData, match="HTTP 302"):
            all_images(options(f"{server.url}/b.tar"))


@pytest.mark.parametrize("sizes", [[13], [5, 3, 8]])
def test_ranks_and_workers_give_each_image_of_a_pass_once(tmp_path: Path, sizes: list[int]) -> None:
    """2 ranks x 2 workers over 1 shard and 3 shards, with failures; the roles end a pass at different times."""
    write_shards(tmp_path, sizes)
    shards = f"{{}}/train-{{{{000000..{len(sizes) - 1:06d}}}}}.tar" if len(sizes) > 1 else "{}/train-000000.tar"
    faults = {"train-000000.tar": [Fault(cut=3000), Fault(503), Fault(cut=200)]}
    seen: dict[int, Counter[int]] = {0: Counter(), 1: Counter()}
    with serving(tmp_path, faults=faults) as server:
        for rank in range(2):
            with stream(shards.format(server.url), 1, context(rank, 2), workers=2, retry_delay=0) as source:
                passes = [0, 0]
                work = Counter()
                while min(passes) < 2:
                    role = source.state_dict()["next"]
                    labels = take(source, 1)
                    passes[role] = source.state_dict()["roles"][role]["pass_number"]
                    if passes[role] in seen:
                        seen[passes[role]].update(labels)
                        work[role] += 1
                assert all(work[role] > 0 for role in range(2)), "every role has work"
    for counts in seen.values():
        assert counts == dict.fromkeys(range(sum(sizes)), 1)


@pytest.mark.parametrize("cache", ["off", "device"])
@pytest.mark.parametrize(("fault", "code", "words"), [(Fault(404), 2, "HTTP 404"), (Fault(503), 1, "tried 2 times")])
def test_training_ends_with_a_message(tmp_path: Path, cache: str, fault: Fault, code: int, words: str) -> None:
    write_shards(tmp_path, SIZES)
    with serving(tmp_path, faults={SECOND: [fault] * 99}) as server:
        data = {"cache": cache, "workers": 2, "retries": 1, "retry_delay": 0, "shuffle": 10, "channels": 3}
        table = tiny_table(f"{server.url}/{PATTERN}", **{f"data__{key}": value for key, value in data.items()})
        result = run_cli("train", write_recipe(tmp_path / "r.toml", table), "--run-dir", tmp_path / "run")
    assert result.code == code, result
    assert f"error: shard {server.url}/{SECOND} cannot be read: " in result.err
    assert words in result.err
    assert "Traceback" not in result.err
    assert ("retry 1 of 1" in result.out + result.err) == (code == 1)
