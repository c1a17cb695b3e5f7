"""The watchdog in real runs: what it sees, what it does, and what it leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebmkit.engine.optimizer import SkippingAdamW
from ebmkit.errors import TrainingFailed
from ebmkit.interfaces import Pairs, Regularizer, Term
from ebmkit.model import load_model
from ebmkit.run_folder import RunFolder
from ebmkit.trainer import Trainer
from ebmkit.watchdog.guard import WARM_UP, Guard
from ebmkit.watchdog.journal import PENALTY, RESTART, ROLLBACK, ROLLBACKS, SKIP, STOP, Journal, read_journal
from ebmkit.watchdog.options import WatchdogOptions
from ebmkit.watchdog.recovery import TRIES, target
from ebmkit.watchdog.symptoms import measure, wrong
from run_helpers import (
    differences,
    last_checkpoint,
    metrics_of,
    new_trainer,
    run_cli,
    tiny_recipe,
    tiny_table,
    with_part,
    write_recipe,
    write_shards,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"))


# --- updates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
def test_a_skipped_update_changes_nothing_and_the_next_one_goes_on(fused: bool) -> None:
    """Bit for bit: an optimizer that skips two bad gradients is where one is that never saw them."""
    torch.manual_seed(0)
    weights = [torch.randn(3, 4), torch.randn(5)]
    gradients = [[torch.randn_like(w) for w in weights] for _ in range(5)]

    def after(bad: tuple[int, ...]) -> tuple[list[Tensor], dict[str, Any]]:
        mine = [w.clone().requires_grad_() for w in weights]
        optimizer = SkippingAdamW(mine, lr=0.1, weight_decay=0.1, fused=fused or None)
        for i, gradient in enumerate(gradients):
            if i in bad:
                for w in mine:
                    w.grad = torch.full_like(w, torch.nan)
                optimizer.good = torch.tensor(False)
                optimizer.step()
            for w, g in zip(mine, gradient, strict=True):
                w.grad = g.clone()
            optimizer.good = torch.tensor(True)
            optimizer.step()
        return [w.detach() for w in mine], optimizer.state_dict()["state"]

    assert not list(differences(after((0, 3)), after(())))


def test_a_guard_skips_what_is_not_finite_and_what_explodes() -> None:
    guard = Guard(WatchdogOptions(gradient_factor=10.0), "cpu")
    # Before there is a usual norm, only what is not finite.
    assert [bool(guard.judge(torch.tensor(norm))) for norm in (1.0, 1e6, float("nan"), float("inf"))] == [
        True,
        True,
        False,
        False,
    ]
    guard = Guard(WatchdogOptions(gradient_factor=10.0), "cpu")
    for _ in range(WARM_UP):
        assert guard.judge(torch.tensor(2.0))
    assert not guard.judge(torch.tensor(21.0))
    assert not guard.judge(torch.tensor(1e30))
    assert guard.judge(torch.tensor(19.0))
    counts = guard.read()
    assert (counts["updates"], counts["skipped"], counts["not_finite"]) == (WARM_UP + 3, 2, 0)
    assert guard.read()["updates"] == 0


def test_a_guard_goes_on_from_its_state() -> None:
    options = WatchdogOptions()
    one, other = Guard(options, "cpu"), Guard(options, "cpu")
    for norm in torch.linspace(1, 3, 50):
        one.judge(norm)
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for norm in (250.0, 150.0):
        assert bool(one.judge(torch.tensor(norm))) == bool(other.judge(torch.tensor(norm)))


def test_a_healthy_run_has_the_same_numbers_with_and_without(tmp_path: Path, shards: str) -> None:
    found = []
    for mode in ("recover", "off"):
        recipe = tiny_recipe(shards, train__steps=30, train__checkpoint_every=10, watchdog={"mode": mode})
        folder = new_trainer(tmp_path / mode, recipe).train().folder
        assert read_journal(folder) == []
        state = last_checkpoint(folder)
        state["state.safetensors"].pop("watchdog")
        found.append((state, metrics_of(folder)))
    assert not list(differences(*found))


# --- symptoms --------------------------------------------------------------------------------------------------------


def pairs_of(x_pos: Tensor, x_neg: Tensor, scale: float = 1.0) -> Pairs:
    def energy(x: Tensor, t: Tensor) -> Tensor:
        return scale * x.flatten(1).mean(1) * 8

    return Pairs(energy, x_pos, x_neg, torch.ones(len(x_neg), dtype=torch.int64))


IMAGES = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
NOISE = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))
CASES: dict[str, tuple[Pairs, str | None]] = {
    "data itself": (pairs_of(IMAGES, IMAGES.flip(0)), None),
    "noise": (pairs_of(IMAGES, NOISE), None),
    "one image": (pairs_of(IMAGES, IMAGES[:1].expand(32, -1, -1, -1) + 1e-4 * NOISE), "spread"),
    "three images": (pairs_of(IMAGES, IMAGES[:3].repeat(11, 1, 1, 1)[:32]), "duplicates"),
    "all at the limits": (pairs_of(IMAGES, (NOISE * 100).clamp(-1, 1)), "saturation"),
    "far away": (pairs_of(IMAGES, NOISE * 9), "spread"),
    "a gap": (pairs_of(IMAGES, IMAGES + 0.9, scale=200.0), "energy_gap"),
    "not a number": (pairs_of(IMAGES, IMAGES * torch.nan), "spread"),
}


@pytest.mark.parametrize("case", CASES)
def test_symptoms(case: str) -> None:
    pairs, expected = CASES[case]
    told = wrong(measure(pairs, time_steps=4, bound=1.0), WatchdogOptions())
    assert (expected in told) if expected else told == {}


def test_one_energy_far_from_all_others() -> None:
    x = IMAGES.clone()
    x[3] = 9.0
    told = wrong(measure(pairs_of(IMAGES, x, scale=100.0), 4, 1.0), WatchdogOptions(energy_limit=50.0))
    assert "energy_range" in told


def test_copies_in_the_data_are_no_collapse() -> None:
    """A set of four images, as in a test of overfitting."""
    four = IMAGES[:4].repeat(8, 1, 1, 1)
    assert wrong(measure(pairs_of(four, four), 4, 1.0), WatchdogOptions()) == {}


# --- runs that diverge -----------------------------------------------------------------------------------------------


class NanAt(Regularizer):
    """A penalty that is NaN at some calls, counted in this process."""

    # A model file names the plugins of its parts, and this class is of none.
    name = "energy_l2"
    steps: tuple[int, ...] = ()
    calls = 0

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term:
        kind = type(self)
        kind.calls += 1
        value = pairs.energies[0].mean() * (torch.nan if kind.calls in kind.steps else 0.0)
        return Term(value, {"penalty": value.detach()})


def nan_at(*steps: int) -> type[NanAt]:
    return type("NanAt", (NanAt,), {"steps": steps, "calls": 0})


def test_single_bad_updates_are_skipped_counted_and_told(tmp_path: Path, shards: str) -> None:
    told: list[str] = []
    recipe = tiny_recipe(shards, train__steps=12, train__log_every=4, train__checkpoint_every=4)
    recipe = with_part(recipe, nan_at(2, 3, 9))
    trainer = new_trainer(tmp_path / "run", recipe, told.append)
    outcome = trainer.train()
    assert outcome.finished
    events = read_journal(outcome.folder)
    assert [(event["action"], event["step"], event["count"]) for event in events] == [(SKIP, 4, 2), (SKIP, 12, 1)]
    assert all("not finite" in event["cause"] for event in events)
    assert [row["skipped_updates"] for row in metrics_of(outcome.folder)] == [2, 2, 3]
    assert any("warning: watchdog: step 4: 2 updates skipped" in line for line in told)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert load_model(outcome.model).sample(2).isfinite().all()


def test_a_poisoned_buffer_is_mended_where_it_is_drawn_from(tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(shards, train__steps=40, train__checkpoint_every=40)
    trainer = new_trainer(tmp_path / "run", recipe)
    slots: Any = trainer.buffer.slots  # type: ignore[attr-defined]
    slots.x[:10], slots.x[10:20], slots.t[:20] = torch.nan, 1e30, 2
    outcome = trainer.train()
    assert outcome.finished
    assert slots.x.isfinite().all()
    assert float(slots.x.abs().max()) < 10
    events = read_journal(outcome.folder)
    assert {event["action"] for event in events} == {RESTART}
    assert sum(event["count"] for event in events) == 20


def test_restarted_chains_begin_a_sweep(tmp_path: Path, shards: str) -> None:
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards))
    buffer, slots = trainer.buffer, trainer.buffer.slots  # type: ignore[attr-defined]
    slots.x[:], slots.t[:] = torch.nan, 2
    drawn = buffer.draw(8, torch.Generator().manual_seed(0))
    drawn = trainer.watchdog.guard.restart(buffer, drawn, torch.Generator().manual_seed(1))
    assert drawn.t.tolist() == [4] * 8
    buffer.store(drawn.slots, drawn.x)
    assert slots.t[drawn.slots].tolist() == [3] * 8
    assert slots.x[drawn.slots].isfinite().all()


def test_a_chain_that_the_sampler_loses_goes_on_from_where_it_was(
    tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards, train__steps=10, train__checkpoint_every=10))
    refine, lost = trainer.sampler.refine, list[Tensor]()

    def loses(energy: Any, x: Tensor, t: Tensor, noise: Any) -> Tensor:
        after = refine(energy, x, t, noise)
        lost.append(x[0].clone())
        after[0] = torch.nan
        return after

    monkeypatch.setattr(trainer.sampler, "refine", loses)
    trainer.train_step()
    assert trainer.pairs is not None
    assert torch.equal(trainer.pairs.x_neg[0], lost[0])
    outcome = trainer.train()
    assert metrics_of(outcome.folder)[-1]["skipped_updates"] == 0
    assert sum(event["count"] for event in read_journal(outcome.folder)) == 10


def always_nan_from(step: int, until: int = 10**9) -> type[NanAt]:
    return nan_at(*range(step, min(until, step + 10_000)))


def test_a_rollback_goes_to_the_checkpoint_with_other_numbers_and_half_the_learning_rate(
    tmp_path: Path, shards: str
) -> None:
    told: list[str] = []
    recipe = tiny_recipe(
        shards,
        train__steps=20,
        train__checkpoint_every=5,
        optimizer={"learning_rate": 1e-3},
        watchdog={"max_skips": 3},
    )
    # Three bad updates after the checkpoint of step 5; the steps that come again are good.
    trainer = new_trainer(tmp_path / "run", with_part(recipe, nan_at(7, 8, 9)), told.append)
    outcome = trainer.train()
    assert (outcome.finished, outcome.step) == (True, 20)
    events = read_journal(outcome.folder)
    back = next(event for event in events if event["action"] == ROLLBACK)
    assert (back["step"], back["to"], back["learning_rate_factor"]) == (9, 5, 0.5)
    rows = metrics_of(outcome.folder)
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert [row["learning_rate"] for row in rows] == [1e-3] * 5 + [5e-4] * 15
    assert [row["rollbacks"] for row in rows] == [0] * 5 + [1] * 15
    assert any("rolled back to the checkpoint of step 5" in line for line in told)
    # Where nothing is wrong the sixth step has other numbers.
    plain = metrics_of(new_trainer(tmp_path / "plain", with_part(recipe, nan_at())).train().folder)
    assert plain[4]["loss"] == rows[4]["loss"]
    assert plain[5]["loss"] != rows[5]["loss"]


def test_a_run_killed_after_a_rollback_goes_on_to_the_same_numbers(tmp_path: Path, shards: str) -> None:
    """The journal is what a resumed run knows its rollbacks from: also one that began again."""
    recipe = tiny_recipe(shards, train__steps=16, train__checkpoint_every=8, watchdog={"max_skips": 3})
    for name, bad in (("from the beginning", (2, 3, 4)), ("from a checkpoint", (10, 11, 12))):
        whole = with_part(recipe, nan_at(*bad))
        folder = new_trainer(tmp_path / name / "whole", whole).train().folder
        # Another process, stopped five steps after the rollback as if killed: nothing is saved.
        part = with_part(recipe, nan_at(*bad))
        first = new_trainer(tmp_path / name / "part", part)
        steps = iter(range(100))
        with pytest.raises(KeyboardInterrupt):
            first.train(lambda steps=steps, last=bad[-1] + 5: _interrupt(next(steps) >= last))  # type: ignore[misc]
        run = RunFolder(tmp_path / name / "part")
        assert [event["action"] for event in read_journal(run.folder)].count(ROLLBACK) == 1
        again = Trainer(with_part(recipe, nan_at()), run, "cpu", first.view)
        assert again.step == (0 if "beginning" in name else 8)
        again.train()
        assert not list(differences(last_checkpoint(folder), last_checkpoint(run.folder)))


def _interrupt(now: bool) -> bool:
    if now:
        raise KeyboardInterrupt
    return False


def test_after_the_last_rollback_training_ends_with_a_diagnosis(tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(
        shards, train__steps=50, train__checkpoint_every=5, watchdog={"max_skips": 2, "max_rollbacks": 3}
    )
    trainer = new_trainer(tmp_path / "run", with_part(recipe, always_nan_from(12)))
    with pytest.raises(TrainingFailed) as caught:
        trainer.train()
    message = str(caught.value)
    assert "training diverges" in message
    assert "energy_l2/penalty" in message
    assert message.count("rolled back to the checkpoint of step 10") == 3
    assert "the checkpoint of step 10 is untouched: --resume" in message
    events = read_journal(tmp_path / "run")
    assert [event["action"] for event in events].count(ROLLBACK) == 3
    assert events[-1]["action"] == STOP
    # The resumed run, mended, needs none of them.
    again = Trainer(with_part(recipe, nan_at()), RunFolder(tmp_path / "run"), "cpu", trainer.view)
    assert again.train().finished


def test_a_checkpoint_that_does_not_help_gives_way_to_an_older_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (5, 10):
        run.checkpoint(step).mkdir(parents=True)
    events: list[dict[str, Any]] = []
    found = []
    for _ in range(2 * TRIES + 2):
        to = target(run, events)
        found.append(to)
        events.append({"action": ROLLBACK, "to": to or 0})
        run.discard_checkpoints_after(to or 0)
    assert found == [10] * TRIES + [5] * (TRIES + 2)
    assert [step for step, _ in run.complete_checkpoints()] == [5]
    # A later checkpoint of a step that was tried before is another one.
    run.checkpoint(10).mkdir()
    assert target(run, events) == 10
    assert target(run, events, {10}) == 5
    assert target(run, events, {5, 10}) is None


def test_a_damaged_checkpoint_gives_way_to_an_older_one(tmp_path: Path, shards: str) -> None:
    told: list[str] = []
    recipe = tiny_recipe(shards, train__steps=20, train__checkpoint_every=4, watchdog={"max_skips": 3})
    trainer = new_trainer(tmp_path / "run", with_part(recipe, nan_at(10, 11, 12)), told.append)
    look, run = trainer.watchdog.look, trainer.run

    def rots(step: int, *more: Any) -> Any:
        if step == 11:
            (run.checkpoint(8) / "state.safetensors").write_bytes(b"rotten")
        return look(step, *more)

    trainer.watchdog.look = rots  # type: ignore[method-assign]
    assert trainer.train().finished
    (back,) = [event for event in read_journal(run.folder) if event["action"] == ROLLBACK]
    assert (back["step"], back["to"]) == (12, 4)
    assert any("step-000000008" in line and "an older checkpoint is taken" in line for line in told)


def test_mode_stop_ends_at_the_first_alarm_and_still_skips(tmp_path: Path, shards: str) -> None:
    watchdog = {"mode": "stop", "max_skips": 3}
    recipe = with_part(tiny_recipe(shards, train__steps=50, watchdog=watchdog), nan_at(3, 10, 11, 12))
    with pytest.raises(TrainingFailed, match=r"3 updates in a row were skipped.*\(noticed at step 12\)"):
        new_trainer(tmp_path / "run", recipe).train()
    assert [event["action"] for event in read_journal(tmp_path / "run")] == [SKIP, SKIP, SKIP, SKIP, STOP]


def test_a_learning_rate_far_too_large_is_halved_until_it_is_not(tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(shards, train__steps=20, optimizer={"learning_rate": 0.2}, train__checkpoint_every=50)
    outcome = new_trainer(tmp_path / "run", recipe).train()
    assert outcome.finished
    rates = {row["learning_rate"] for row in metrics_of(outcome.folder)}
    assert max(rates) <= 0.2 / 2
    causes = {event["cause"] for event in read_journal(outcome.folder) if event["action"] == ROLLBACK}
    assert all("root mean square of the weights" in cause for cause in causes)


def test_a_recipe_without_a_bound_gets_a_penalty_when_energies_run_away(tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(
        shards,
        regularizers=[],
        sampler={"use": "langevin", "steps": 2, "noise": 0.05, "step_size": 1.0},
        optimizer={"learning_rate": 3e-3},
        train__steps=300,
        train__log_every=5,
        train__checkpoint_every=400,
        watchdog={"gap_limit": 1.0},
    )
    outcome = new_trainer(tmp_path / "run", recipe).train()
    assert outcome.finished
    events = read_journal(outcome.folder)
    actions = [event["action"] for event in events]
    assert actions.count(PENALTY) == 1
    first = next(event for event in events if event["action"] in ROLLBACKS)
    assert (first["action"], first["use"], first["to"], first["learning_rate_factor"]) == (PENALTY, "wgan_lp", 0, 1.0)
    assert "wgan_lp/penalty" in metrics_of(outcome.folder)[-1]
    # The model says what it was trained with; the run's recipe is its user's.
    assert "wgan_lp" in load_model(outcome.model).metadata["recipe"]
    assert "wgan_lp" not in RunFolder(outcome.folder).recipe.read_text().split("[watchdog]")[0]


def test_a_bounded_recipe_gets_no_penalty(tmp_path: Path, shards: str) -> None:
    recipe = tiny_recipe(
        shards, train__steps=30, watchdog={"gap_limit": 1e-6, "patience": 1, "max_rollbacks": 2}, train__log_every=5
    )
    with pytest.raises(TrainingFailed, match="mean energies of data and chains"):
        new_trainer(tmp_path / "run", recipe).train()
    assert PENALTY not in [event["action"] for event in read_journal(tmp_path / "run")]


def test_checkpoints_wait_while_something_looks_wrong(tmp_path: Path, shards: str) -> None:
    """Looks at 2, 4, 6, 8: wrong at 4 and 6, so that what step 4 and 6 were due comes with step 8."""
    recipe = tiny_recipe(shards, train__steps=10, train__log_every=2, train__checkpoint_every=4)
    trainer = new_trainer(
        tmp_path / "run", replace(recipe, train=recipe.train.model_copy(update={"keep_checkpoints": 9}))
    )
    look = trainer.watchdog.look

    def doubtful(step: int, *more: Any) -> Any:
        alarm = look(step, *more)
        trainer.watchdog.waiting = {"spread": 1} if step in (4, 6) else {}
        return alarm

    trainer.watchdog.look = doubtful  # type: ignore[method-assign]
    trainer.train()
    saved = [step for step, _ in trainer.run.complete_checkpoints()]
    assert saved == [8, 10]


# --- the recipe, the journal, the command line ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [({"use": "nonsense"}, "nonsense"), ({"use": "spectral_norm"}, "changes the network"), ({"weight": 1.0}, "use")],
)
def test_a_penalty_that_cannot_be_added_is_a_problem_of_the_recipe(
    penalty: dict[str, Any], expected: str, tmp_path: Path, shards: str
) -> None:
    recipe = write_recipe(tmp_path / "r.toml", tiny_table(shards, watchdog={"penalty": penalty}))
    result = run_cli("check", recipe)
    assert result.code == 2
    assert "watchdog.penalty" in result.err
    assert expected in result.err


def test_a_journal_survives_half_a_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path, [], True, lambda line: None)
    journal.add(SKIP, 3, "x", count=2)
    with journal.path.open("a") as file:
        file.write('{"action": "sk')
    Journal(tmp_path, read_journal(tmp_path), True, lambda line: None).add(ROLLBACK, 5, "y", to=0)
    found = read_journal(tmp_path)
    assert [event["action"] for event in found] == [SKIP, ROLLBACK]
    assert Journal(tmp_path, found, False, print).count(SKIP) == 2


def test_a_person_hears_of_a_few_and_the_journal_of_all(tmp_path: Path) -> None:
    told: list[str] = []
    journal = Journal(tmp_path, [], True, told.append)
    for step in range(50):
        journal.add(SKIP, step, "x")
    assert len(told) == 5
    assert "only counted" in told[-1]
    assert len(read_journal(tmp_path)) == 50


def test_the_command_line_tells_and_ends(tmp_path: Path, shards: str) -> None:
    sampler = {"use": "langevin", "step_size": 1e38}
    table = tiny_table(shards, sampler=sampler, train__steps=500, watchdog={"max_rollbacks": 1, "max_skips": 3})
    result = run_cli("train", write_recipe(tmp_path / "r.toml", table), "--run-dir", tmp_path / "run")
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert "training diverges" in result.err
    assert "Traceback" not in result.err
    assert json.loads((tmp_path / "run/watchdog.jsonl").read_text().splitlines()[-1])["action"] == STOP
