"""A run of N processes goes on in M: weights, EMA, optimizer state, every slot of the buffer, the place in the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ranks
from ebmkit.checkpoint import Checkpoint, rank_file
from ebmkit.data.source import NEXT_PASS
from ebmkit.distributed.world import Solo
from ebmkit.elastic import data_state
from ebmkit.interfaces import Buffer, Context
from ebmkit.state_file import load_state, save_state
from run_helpers import differences, last_checkpoint, metrics_of, run_process, tiny_table, write_recipe, write_shards

HERE = Path(__file__).parent
SLOTS = 41
"""Divisible by no number of processes that is tried."""
STAGES = {1: 0, 2: 2, 4: 1}
"""The ZeRO stage of the run of so many processes."""
COUNTS = (1, 2, 4)


def train(folder: Path, count: int, steps: int, *more: object) -> None:
    words = ["train", folder / "recipe.toml", "--run-dir", folder / f"from-{count}", "--set", f"train.steps={steps}"]
    done = run_process(*words, "--processes", count, *more, cwd=folder)
    assert done.code == 0, done.out + done.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("elastic")
    table = tiny_table(write_shards(made / "shards"), optimizer={"learning_rate": 1e-3}, buffer__size=SLOTS)
    table["train"]["checkpoint_every"] = 3
    write_recipe(made / "recipe.toml", table)
    return made


@pytest.fixture(scope="module")
def saved(folder: Path) -> Any:
    """The checkpoint of a run in so many processes, three steps long; made when it is first asked for."""

    def checkpoint(count: int) -> dict[str, Any]:
        if not (folder / f"from-{count}").exists():
            train(folder, count, 3, "--set", f"engine.zero_stage={STAGES[count]}")
        return last_checkpoint(folder / f"from-{count}")

    return checkpoint


@pytest.fixture(scope="module")
def restored(folder: Path, saved: Any) -> Any:
    """What `now` processes have of the run of `before`; one job looks at the runs of one process and of two."""

    def state(before: int, now: int) -> dict[str, Any]:
        runs = [4] if before == 4 else [1, 2]
        out = folder / f"restored-{runs[0]}-{now}"
        if not out.exists():
            for count in runs:
                saved(count)
            out.mkdir()
            words = [HERE / "restored.py", out, 1 if now == 2 else 2, *(folder / f"from-{count}" for count in runs)]
            ranks.finish(ranks.start(now, *words, cwd=folder))
        return load_state(out / f"{runs.index(before)}.safetensors")

    return state


def slots(states: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([state[name] for state in states]) for name in ("x", "t")}


@pytest.mark.slow
@pytest.mark.parametrize("now", COUNTS)
@pytest.mark.parametrize("before", COUNTS)
def test_nothing_is_lost(before: int, now: int, saved: Any, restored: Any) -> None:
    checkpoint = saved(before)
    shared = checkpoint["state.safetensors"]
    buffers = [checkpoint[f"rank-{rank:04d}.safetensors"]["buffer"] for rank in range(before)]
    assert [len(state["t"]) for state in buffers] == [SLOTS // before + (r < SLOTS % before) for r in range(before)]
    state = restored(before, now)
    assert state["step"] == 3
    for part in ("model", "ema"):
        assert not list(differences(shared[part], state[part], part))
    assert not list(differences(shared["engine"]["state"], state["engine"]["state"], "engine"))
    assert {float(item["step"]) for item in state["engine"]["state"].values()} == {3.0}
    assert [len(state["t"]) for state in state["buffers"]] == [SLOTS // now + (r < SLOTS % now) for r in range(now)]
    assert not list(differences(slots(buffers), slots(state["buffers"]), "slots"))
    # The set is cached, so that its position holds for any number of processes.
    assert {position["seen"] for position in state["data"]} == {24}
    assert not any(state["said"])


@pytest.mark.slow
def test_the_same_number_goes_on_to_the_same_numbers(folder: Path, saved: Any) -> None:
    """Three steps and three more, in two processes, are six steps, bit for bit."""
    saved(2)
    train(folder, 2, 6, "--resume")
    straight = folder / "straight"
    straight.mkdir()
    write_recipe(straight / "recipe.toml", tiny_table(str(folder / "shards" / "train-{000000..000001}.tar")))
    (straight / "recipe.toml").write_text((folder / "recipe.toml").read_text())
    train(straight, 2, 6, "--set", f"engine.zero_stage={STAGES[2]}")
    assert metrics_of(folder / "from-2") == metrics_of(straight / "from-2")
    assert not list(differences(last_checkpoint(folder / "from-2"), last_checkpoint(straight / "from-2")))


def test_one_goes_on_in_two_and_two_in_one(folder: Path, saved: Any) -> None:
    saved(1)
    for count, steps in ((2, 6), (1, 9)):
        words = ["train", "recipe.toml", "--run-dir", "from-1", "--resume", "--set", f"train.steps={steps}"]
        done = run_process(*words, "--processes", count, cwd=folder)
        assert done.code == 0, done.out + done.err
        assert f"going on from step {steps - 3} to {steps}" in done.out
    assert [row["step"] for row in metrics_of(folder / "from-1")] == list(range(1, 10))
    found = last_checkpoint(folder / "from-1")
    assert sorted(found) == ["rank-0000.safetensors", "state.safetensors"]
    assert found["state.safetensors"]["images_seen"] == 72


@pytest.mark.slow
def test_streamed_shards_are_dealt_out_anew(folder: Path) -> None:
    """Two workers of one process, one worker of each of two, and back: as many readers, but other parts."""
    table = tiny_table(str(folder / "shards" / "train-{000000..000001}.tar"), optimizer={"learning_rate": 1e-3})
    table["data"] |= {"cache": "off", "workers": 2}
    write_recipe(folder / "streamed.toml", table)
    for count, workers, steps in ((1, 2, 2), (2, 1, 4), (1, 2, 6)):
        words = ["train", "streamed.toml", "--run-dir", "streamed", "--processes", count]
        words += ["--set", f"train.steps={steps}", "--set", f"data.workers={workers}"]
        done = run_process(*words, *(["--resume"] if steps > 2 else []), cwd=folder)
        assert done.code == 0, done.out + done.err
        assert (NEXT_PASS in done.out) == (steps > 2), done.out


class Rows(Buffer):
    """Slots with a counter beside them."""

    name = "rows"
    draw = store = load_state_dict = None  # type: ignore[assignment]


def context(rank: int, ranks: int) -> Context:
    return Context((1, 8, 8), 4, rank=rank, world_size=ranks)


@pytest.mark.parametrize(("before", "now"), [(1, 3), (3, 1), (2, 4), (4, 2), (3, 5), (5, 2)])
def test_rows_are_dealt_out_anew(before: int, now: int) -> None:
    states = [{"x": torch.arange(r * 10, r * 10 + 3 + r), "version": 2} for r in range(before)]
    dealt = [Rows.redeal(states, context(rank, now)) for rank in range(now)]
    assert torch.equal(torch.cat([state["x"] for state in dealt]), torch.cat([state["x"] for state in states]))
    sizes = [len(state["x"]) for state in dealt]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True), "as the buffers deal out their slots"
    assert {state["version"] for state in dealt} == {2}


def test_what_differs_between_ranks_has_to_be_redealt_by_the_buffer_itself() -> None:
    with pytest.raises(ValueError, match="'place' differs between the ranks"):
        Rows.redeal([{"place": 1}, {"place": 2}], context(0, 1))


@pytest.mark.parametrize(("now", "kept"), [(2, "own"), (4, ""), (1, "")])
def test_positions_in_shards_are_a_ranks_own(tmp_path: Path, now: int, kept: str) -> None:
    """Two ranks with two workers each read as many parts as four with one, but not the same ones."""
    for rank, number in enumerate((3, 4)):
        state = {"kind": "stream", "fingerprint": "own", "pass": number, "roles": [], "next": 0, "skipped": number}
        save_state(tmp_path / rank_file(rank), {"data": state})
    saved = Checkpoint(1, 8, {}, tmp_path, ranks=2)
    world = Solo()
    world.size = now
    found = data_state(saved, world)
    assert found["fingerprint"] == kept
    assert found["skipped"] == (3 if now == 2 else 7), "of all ranks, on the first"
    assert found["pass"] == (3 if now == 2 else 4), "elsewhere the pass after the one that got furthest"
