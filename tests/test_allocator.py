"""Keeping freed memory, in processes of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ebmkit.cli.app import app
from ebmkit.errors import BadInput

CODE = """
import resource
import torch
from ebmkit.allocator import keep_freed_memory

kept = keep_freed_memory() if {keep} else False
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(keep: bool, **environment: str) -> tuple[bool, int]:
    """What `keep_freed_memory` said, and the pages that 20 tensors of 64 MiB, one after the other, wait for."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = [sys.executable, "-c", CODE.format(keep=keep)]
    said, faults = subprocess.run(
        run, env={**clean, **environment}, capture_output=True, text=True, check=True
    ).stdout.split()
    return said == "True", int(faults)


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other allocators")


def test_freed_memory_is_used_again() -> None:
    without = pages(keep=False)[1]
    kept, faults = pages(keep=True)
    assert kept
    assert faults < without / 2


@pytest.mark.parametrize(
    "option", [{"MALLOC_TRIM_THRESHOLD_": "1000000"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000000"}]
)
def test_options_of_the_user_stay(option: dict[str, str]) -> None:
    assert pages(keep=True, **option)[0] is False


def test_evaluate_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is computed."""

    def kept() -> bool:
        raise BadInput("kept")

    monkeypatch.setattr("ebmkit.allocator.keep_freed_memory", kept)
    found = CliRunner().invoke(app, ["evaluate", "nowhere.safetensors"])
    assert "kept" in str(found.exception)
