"""Shards from `pipe:` commands: failures, silence, and no process that outlives its stream."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ebmkit.data.images import all_images
from ebmkit.errors import BadData, DataError
from shards_helper import numbers_of, options, stream, take, write_shards

SIZES = [20, 9]


def script(folder: Path, failures: int, then: str) -> str:
    """A command that writes a shard, after failing so often in the way that the shell code `then` says.

    `{}` in `then` is the shard. How often it was called stands in calls.txt.
    """
    shard, calls = folder / "train-000000.tar", folder / "calls.txt"
    path = folder / "get.sh"
    path.write_text(
        f"echo x >> {calls}\nif [ $(wc -l < {calls}) -le {failures} ]; then {then.format(shard)}; fi\ncat {shard}\n"
    )
    return f"pipe:sh {path}"


def calls(folder: Path) -> int:
    return (folder / "calls.txt").read_text().count("x")


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("exit 3", "failed with exit status 3"),
        ("echo no such bucket >&2; exit 1", "exit status 1: no such bucket"),
        ("head -c 5000 {}; exit 1", "failed with exit status 1"),
        ("head -c 5000 {}; exit 0", "it ended early, after 5,000 bytes"),
        ("exit 0", "gave nothing"),
        ("head -c 5000 {}; kill -9 $$", "(signal 9|status 137)"),
        ("head -c 5000 {}; sleep 60", "no byte for 1.5 s"),
        ("head -c 100000 /dev/zero | tr '\\0' e >&2; echo the end >&2; exit 9", "exit status 9.*the end"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_command_that_fails_once_is_run_again(tmp_path: Path, then: str, reason: str, workers: int) -> None:
    shards = write_shards(tmp_path, SIZES)
    with stream(shards) as source:
        expected = take(source, 29)
    command = script(tmp_path, 1, then)
    told: list[str] = []
    timeout = 1.5 if "sleep" in then else 30
    with stream([command, shards[1]], told=told, workers=workers, retry_delay=0, timeout=timeout) as source:
        assert take(source, 29) == expected
    assert len(told) == 1
    assert re.search(reason, told[0]), told
    assert "retry 1 of 5" in told[0]


def test_a_command_that_always_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    write_shards(tmp_path, SIZES)
    command = script(tmp_path, 99, "echo Unable to locate credentials >&2; exit 253")
    with pytest.raises(DataError, match=r"tried 3 times.*exit status 253: Unable to locate credentials") as caught:
        all_images(options(command, retries=2, retry_delay=0), warn=lambda text: None)
    assert command in str(caught.value)
    assert calls(tmp_path) == 3


def test_a_command_that_is_not_installed_is_not_run_again(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"cannot be run \(exit status 127\).*no-such-program.*not found"):
        all_images(options("pipe:no-such-program x", retry_delay=30))


@pytest.mark.parametrize("status", [0, 1])
def test_a_command_must_give_the_same_bytes_again(tmp_path: Path, status: int) -> None:
    write_shards(tmp_path, SIZES)
    command = script(tmp_path, 1, "tr 0 1 < {} | head -c 5000; exit " + str(status))
    with pytest.raises(DataError, match="content changed meanwhile"):
        all_images(options(command, retry_delay=0), warn=lambda text: None)


def test_a_shard_that_is_short_in_itself_is_read_twice_and_then_used(tmp_path: Path) -> None:
    shard, told = Path(write_shards(tmp_path, [9])[0]), []
    shard.write_bytes(shard.read_bytes()[:6_500])
    images = all_images(options(script(tmp_path, 0, ":"), retry_delay=0), warn=told.append)
    assert numbers_of(images.numpy()) == [0, 1]
    assert calls(tmp_path) == 2
    assert "damaged or cut short after 2 whole samples" in told[-1]


def descendants(marker: str) -> list[int]:
    """Living processes that have `marker` in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def zombies() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.append(entry.parent.name)
    return found


def gone(marker: str) -> bool:
    until = time.monotonic() + 10
    while descendants(marker):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("state", ["idle", "waiting"])
def test_closing_a_stream_ends_its_commands(tmp_path: Path, workers: int, state: str) -> None:
    """Also those that wait for something: the pipe alone would not end them."""
    shard = write_shards(tmp_path, [400])[0]
    marker = f"31{os.getpid()}.{time.monotonic_ns() % 100_000}"
    command = f"pipe:(sleep {marker} & cat {shard}; sleep {marker})"
    with stream(command, 4, workers=workers, shuffle=10) as source:
        take(source, 1 if state == "idle" else 20)
        assert descendants(marker)
    source.close()
    assert gone(marker)
    assert zombies() == []
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_that_is_stopped_while_it_waits_takes_its_command_along(tmp_path: Path) -> None:
    marker = f"32{os.getpid()}.{time.monotonic_ns() % 100_000}"
    with stream(f"pipe:sleep {marker}", workers=1):
        until = time.monotonic() + 10
        while not descendants(f"sleep\0{marker}"):
            assert time.monotonic() < until
            time.sleep(0.02)
        [child] = multiprocessing.active_children()
        os.kill(child.pid or 0, signal.SIGTERM)
        assert gone(marker)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_command_outlives_a_process_that_ends_without_closing(tmp_path: Path) -> None:
    marker = f"33{os.getpid()}.{time.monotonic_ns() % 100_000}"
    command = f"pipe:(cat {write_shards(tmp_path, [400])[0]}; sleep {marker})"

    program = (
        "import sys\n"
        "from shards_helper import context, options\n"
        "from ebmkit.data import open_images\n"
        "source = open_images(options(sys.argv[1], cache='off', shuffle=10), context(), 1)\n"
        "source.next()\n"
        # As an error's traceback may hold it.
        "sys.kept = source\n"
        "print('read')\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", program, command],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "read\n", done.stderr
    assert gone(marker)


def test_commands_have_no_input_to_wait_for(tmp_path: Path) -> None:
    shard = write_shards(tmp_path, [5])[0]
    assert len(all_images(options(f"pipe:cat - {shard}", timeout=5, retries=0))) == 5
