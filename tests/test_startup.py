"""How long a person waits: for `--help` and `list-plugins`, and for the first step of `ebmkit train digits`."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from run_helpers import environment

PROGRAM = "from ebmkit.cli import main; main()"
MODULES = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr))
"""
NEVER = {
    *("torch", "torchvision", "timm", "deepspeed", "webdataset", "safetensors", "sklearn", "scipy", "numpy", "PIL"),
    *("tensorboard", "multiprocessing", "http", "asyncio"),
}
"""What no command that computes nothing may import."""
QUICK = 1.5
"""Seconds at most for such a command, the median of some; 0.13 and 0.48 measured on two shared cores."""
FIRST_STEP = 45.0
"""Seconds at most to train one step; three times the target of 15, for busy machines."""


def ebmkit(*words: str, before: str = "", cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    extra = {} if cache is None else {"EBMKIT_CACHE": str(cache)}
    return subprocess.run(
        [sys.executable, "-c", before + PROGRAM, *words],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment(**extra),
        check=True,
    )


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("--help", {"pydantic", "rich", "pluggy", "tomllib"}),
        # typer looks at the types of the command's arguments by pydantic.
        ("train --help", {"rich", "pluggy", "tomllib"}),
        ("list-plugins", {"tomllib"}),
        ("list-plugins --json", {"rich", "tomllib"}),
    ],
)
def test_what_is_not_imported(command: str, more: set[str]) -> None:
    done = ebmkit(*command.split(), before=MODULES)
    imported = set(json.loads(done.stderr.splitlines()[-1]))
    assert "ebmkit" in imported
    assert imported & (NEVER | more) == set()


def test_the_check_sees_what_is_imported() -> None:
    done = ebmkit("--help", before=MODULES + "import pydantic, numpy\n")
    assert {"pydantic", "numpy"} <= set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("word", ["--help", "list-plugins"])
def test_nobody_waits_for_a_command_that_computes_nothing(word: str) -> None:
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        ebmkit(word)
        taken.append(time.perf_counter() - begin)
    assert statistics.median(taken) < QUICK, taken


def test_training_digits_begins_soon_with_an_empty_and_a_warm_cache(tmp_path: Path) -> None:
    for turn in ("empty", "warm"):
        begin = time.perf_counter()
        run = tmp_path / turn
        settings = ("train.steps=1", "train.sample_every=0")
        done = ebmkit(
            *("train", "digits", "--run-dir", str(run)),
            *(word for setting in settings for word in ("--set", setting)),
            cache=tmp_path / "cache",
        )
        taken = time.perf_counter() - begin
        assert re.search("^trained to step 1;", done.stdout, re.M)
        assert (run / "model.safetensors").is_file()
        assert taken < FIRST_STEP, f"{turn} cache: {taken:.1f} s"


def test_the_names_of_the_kinds_are_those_of_the_interfaces() -> None:
    from ebmkit.interfaces import INTERFACES
    from ebmkit.kinds import KINDS

    assert tuple(INTERFACES) == KINDS


def test_every_public_name_can_be_had() -> None:
    import ebmkit as package

    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
