"""The server of `children.py`: a line of JSON on standard input is a command, one on standard output how it ended."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from typing import Any

import ebmkit_unet.network  # noqa: F401

# It looks for fonts once, by a command.
import matplotlib.font_manager  # noqa: F401
import torch

import ebmkit
import ebmkit.annealing.estimate
import ebmkit.cli
import ebmkit.data.cached
import ebmkit.data.stream
import ebmkit.detection
import ebmkit.drawing.plots
import ebmkit.evaluation
import ebmkit.image_files
import ebmkit.reporting.writing
import ebmkit.running
import ebmkit.sharing.folder

FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")
"""Events of Python's audit hooks that no hostile file may cause."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
DEVICES = ("/dev/null", "/dev/tty", "/dev/shm")


def watch(allowed: list[str], report: int) -> None:
    """Report every forbidden event of this process, and every file opened for writing outside of `allowed`."""
    folders = [os.path.realpath(folder) for folder in allowed]

    def hook(event: str, values: tuple[Any, ...]) -> None:
        told = None
        if event in FORBIDDEN:
            told = f"{event} {values!r}"
        elif event == "open" and isinstance(values[0], str | bytes) and isinstance(values[2], int):
            if values[2] & WRITES:
                path = os.path.realpath(os.fsdecode(values[0]))
                if not any(path == f or path.startswith(f + os.sep) for f in folders) and not path.startswith(DEVICES):
                    told = f"open for writing {path!r}"
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.symlink", "os.link", "os.rmdir"):
            path = os.path.realpath(os.fsdecode(values[1 if event in ("os.rename", "os.symlink", "os.link") else 0]))
            # What is there already is made again by `exist_ok`.
            made = event != "os.mkdir" or not os.path.exists(path)
            if made and not any(path == f or path.startswith(f + os.sep) for f in folders):
                told = f"{event} {path!r}"
        if told is not None:
            os.write(report, (told[:300].replace("\n", " ") + "\n").encode(errors="backslashreplace"))

    sys.addaudithook(hook)


def command(order: dict[str, Any], report: int) -> None:
    """In the forked process; never returns."""
    os.setsid()
    os.chdir(order["cwd"])
    descriptor = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    torch.set_num_threads(1)
    os.write(report, f"{_resident()}\n".encode())
    watch(order["allowed"], report)
    sys.argv = ["ebmkit", *order["words"]]
    code = 99
    try:
        if order["words"][0] == "load":
            # What `ebmkit.load` does, as a script would.
            try:
                sys.stdout.write(f"{ebmkit.load(order['words'][1], 'cpu')}\n")
                code = 0
            except ebmkit.EbmkitError as error:
                sys.stdout.write(f"error: {error}\n")
                code = error.exit_code
        else:
            ebmkit.cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - it is what the parent looks for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        begun, (reading, writing) = time.monotonic(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            command(order, writing)
        os.close(writing)
        code: int | None = None
        while True:
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                break
            if time.monotonic() - begun > order["seconds"]:
                os.killpg(pid, signal.SIGKILL)
                _, _, usage = os.wait4(pid, 0)
                break
            time.sleep(0.01)
        events = b""
        os.set_blocking(reading, False)
        try:
            while part := os.read(reading, 1 << 16):
                events += part
        except BlockingIOError:
            pass
        os.close(reading)
        # A fork begins with fewer pages than its parent has.
        before, *told = events.decode().splitlines()
        found = {
            "code": code,
            "seconds": round(time.monotonic() - begun, 2),
            "rise_mb": round((usage.ru_maxrss * 1024 - int(before)) / 1e6, 1),
            "events": told,
        }
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    serve()
