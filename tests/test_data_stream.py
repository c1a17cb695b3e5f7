"""Streaming from real shards: completeness, order, resuming, transport, processes."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from ebmkit.data.images import all_images, open_images
from shards_helper import (
    REAL_DATA,
    context,
    options,
    stream,
    take,
    write_shards,
)


@pytest.mark.parametrize("workers", [0, 1])
def test_one_role_gives_every_image_once_a_pass_in_a_new_order(tmp_path: Path, workers: int) -> None:
    with stream(write_shards(tmp_path, [5, 9, 1, 6]), workers=workers) as source:
        passes = [take(source, 21) for _ in range(3)]
    assert all(sorted(found) == list(range(21)) for found in passes)
    assert passes[0] != passes[1] != passes[2] != sorted(passes[2])


@pytest.mark.parametrize(
    ("sizes", "ranks", "workers"), [([6, 6], 1, 2), ([12], 1, 3), ([3, 3, 3, 3], 2, 2), ([12], 2, 1), ([6, 6], 2, 3)]
)
def test_roles_share_a_pass_without_overlap(tmp_path: Path, sizes: list[int], ranks: int, workers: int) -> None:
    """Equal shares, so that all roles end a pass together: more workers than shards included."""
    shards = write_shards(tmp_path, sizes)
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(stream(shards, 1, context(r, ranks), workers=workers)) for r in range(ranks)]
        for _ in range(3):
            found = [label for source in sources for label in take(source, 12 // ranks)]
            assert sorted(found) == list(range(12))


def test_more_roles_than_images_still_give_all_of_them(tmp_path: Path) -> None:
    with stream(write_shards(tmp_path, [2]), workers=3) as source:
        assert Counter(take(source, 6)).keys() == {0, 1}


def test_shuffling_keeps_to_its_window_and_windows_differ(tmp_path: Path) -> None:
    with stream(write_shards(tmp_path, [40]), shuffle=8) as source:
        found = take(source, 40)
    windows = [found[begin : begin + 8] for begin in range(0, 40, 8)]
    assert [sorted(window) for window in windows] == [list(range(begin, begin + 8)) for begin in range(0, 40, 8)]
    assert len({tuple(number % 8 for number in window) for window in windows}) == 5


def test_the_order_follows_from_the_seed_alone(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [10, 10, 10])
    orders = []
    for seed in (1, 1, 2):
        torch.rand(1)
        with stream(shards, 4, context(seed=seed), workers=2) as source:
            orders.append(take(source, 12))
    assert orders[0] == orders[1] != orders[2]


def test_reading_leaves_the_global_random_numbers_alone(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [10])
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    with stream(shards, workers=1) as source:
        source.next()
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_resuming_is_exact_at_every_batch(tmp_path: Path, workers: int) -> None:
    """Two passes and more; windows of 7, batches of 3: they meet at no common boundary. One sample is corrupt."""
    shards = write_shards(tmp_path, [5, 9, 1, 6], corrupt=[8])
    total = 16
    with stream(shards, 3, workers=workers) as source:
        states, skips = [source.state_dict()], [source.skipped]
        labels = []
        for _ in range(total):
            labels.append(take(source, 1))
            states.append(json.loads(json.dumps(source.state_dict())))
            skips.append(source.skipped)
    assert skips[-1] >= 2
    assert any(role["done"] for role in states[3]["roles"])
    for place in range(0, total, 1 if workers == 0 else 5):
        with stream(shards, 3, state=states[place], workers=workers) as source:
            rest = [take(source, 1) for _ in range(total - place)]
            assert rest == labels[place:], f"from batch {place}"
            assert source.state_dict() == states[-1]
            assert source.skipped == skips[-1]


def test_resuming_with_a_sample_stride_is_exact(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [11])
    with stream(shards, 2, workers=2) as source:
        take(source, 5)
        state = source.state_dict()
        expected = take(source, 9)
    with stream(shards, 2, state=state, workers=2) as source:
        assert take(source, 9) == expected


def test_a_run_moved_to_another_folder_goes_on_exactly(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_shards(tmp_path / name, [5, 6])
    with stream(f"{tmp_path}/a/*.tar") as source:
        take(source, 4)
        state, expected = source.state_dict(), take(source, 20)
    with stream(f"{tmp_path}/b/*.tar", state=state) as source:
        assert take(source, 20) == expected


@pytest.mark.parametrize("changed", [{"workers": 2}, {"shuffle": 3}, {"at": context(seed=9)}])
def test_what_does_not_fit_goes_on_with_the_next_pass(tmp_path: Path, changed: dict[str, Any]) -> None:
    shards, told = write_shards(tmp_path, [6, 6]), []
    with stream(shards) as source:
        take(source, 5)
        state = source.state_dict()
    with stream(shards, state=state, told=told, **changed) as source:
        assert source.state_dict()["pass"] == 1
        assert sorted(take(source, 12)) == list(range(12))
    assert len(told) == 1
    assert "next pass" in told[0]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_http_and_commands_and_gzip_give_the_same_images(tmp_path: Path) -> None:
    (tmp_path / "gz").mkdir()
    write_shards(tmp_path, [4, 4])
    write_shards(tmp_path / "gz", [4, 4], suffix=".tar.gz")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    places = [
        f"{tmp_path}/train-{{000000..000001}}.tar",
        f"{tmp_path}/gz/*.tar.gz",
        f"http://127.0.0.1:{server.server_port}/train-{{000000..000001}}.tar",
        f"pipe:cat {tmp_path}/train-{{000000..000001}}.tar",
        f"pipe:cat {tmp_path}/gz/train-{{000000..000001}}.tar.gz",
    ]
    try:
        for place in places:
            told: list[str] = []
            with stream(place, told=told) as source:
                assert sorted(take(source, 8)) == list(range(8)), place
            assert told == [], place
    finally:
        server.shutdown()
        server.server_close()


def test_workers_end_with_the_source_and_start_after_torch_was_busy(tmp_path: Path) -> None:
    weights = torch.randn(300, 300, requires_grad=True)
    (weights @ weights).sum().backward()
    source = open_images(options(write_shards(tmp_path, [9]), cache="off", workers=2), context(), 4)
    source.next()
    assert len(multiprocessing.active_children()) == 2
    source.close()
    source.close()
    assert multiprocessing.active_children() == []
    with pytest.raises(RuntimeError, match="closed"):
        source.next()


def test_workers_end_when_the_training_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, multiprocessing\n"
        "from shards_helper import options\n"
        "from ebmkit.data import open_images\n"
        "from ebmkit.interfaces import Context\n"
        "source = open_images(options(sys.argv[1], cache='off', workers=2), Context((3, 8, 8), 10), 4)\n"
        "source.next()\n"
        "print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "sys.stdin.read()\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-c", program, write_shards(tmp_path, [9])[0]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < until, "workers outlive their parent"
        time.sleep(0.1)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not (REAL_DATA / "cifar10").is_dir(), reason="needs ../shared/data/cifar10")
def test_real_jpeg_shards(tmp_path: Path) -> None:
    chosen = options(f"{REAL_DATA}/cifar10/train-{{000000..000004}}.tar.gz", image_size=32, cache="off", workers=2)
    with open_images(chosen, context(), 64) as source:
        batches = [source.next() for _ in range(8)]
    labels = torch.cat([batch.labels for batch in batches])
    assert set(labels.tolist()) == set(range(10))
    assert 100 < torch.cat([batch.images for batch in batches]).float().mean() < 140


@pytest.mark.skipif(not (REAL_DATA / "flowers64").is_dir(), reason="needs ../shared/data/flowers64")
def test_real_png_shards_in_their_own_order() -> None:
    chosen = options(f"{REAL_DATA}/flowers64/train-*.tar", image_size=64)
    first = all_images(chosen, limit=40)
    assert first.shape == (40, 3, 64, 64)
    assert torch.equal(all_images(chosen, limit=7), first[:7])
