"""Choosing the device and the threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ebmkit
from ebmkit.console import Silent
from ebmkit.device import choose_device, cpu_threads
from ebmkit.errors import BadInput
from run_helpers import tiny_table, write_recipe, write_shards


def test_auto_is_a_device_that_works() -> None:
    torch.empty(1, device=choose_device("auto"))


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "meta"])
def test_a_device_that_is_not_there_is_bad_input(name: str) -> None:
    with pytest.raises(BadInput, match="device"):
        choose_device(name)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with cpu_threads(None):
        assert torch.get_num_threads() == before


def test_training_uses_the_threads_of_its_recipe(tmp_path: Path) -> None:
    class Watcher(Silent):
        seen = 0

        def step(self, step: int) -> None:
            self.seen = torch.get_num_threads()

    before = torch.get_num_threads()
    table = tiny_table(write_shards(tmp_path / "data"))
    table["train"] |= {"steps": 1, "threads": before + 2}
    view = Watcher()
    ebmkit.train(write_recipe(tmp_path / "tiny.toml", table), run_dir=tmp_path / "run", view=view)
    assert view.seen == before + 2
    assert torch.get_num_threads() == before
