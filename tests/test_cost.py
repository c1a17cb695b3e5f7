"""A step does not become dearer unnoticed. `python tests/test_cost.py` accepts what is meant.

`tests/cost.json` holds counts, not times, so they are the same on every machine: of a training step after two others,
and of drawing eight images. They were taken on torch 2.14. FLOPs and waits follow from ebmkit alone and must be equal;
operator calls and bytes depend on how torch splits its operators, and may differ by SLACK (meant for torch 2.11 to
2.15, of which the others have not been tried).

On a CPU, AdamW reads the step counter of every parameter tensor: that many of the waits wait for nothing, because with
a GPU the counters still lie in host memory. What a CPU cannot show: copies between host and device.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import ebmkit
from cost_counting import Cost, cost_of
from ebmkit.model import Model
from ebmkit.pipeline import frozen
from ebmkit.sampling import start_noise, sweep
from ebmkit.trainer import Trainer
from run_helpers import new_trainer

FIGURES = Path(__file__).parent / "cost.json"
SLACK = {"flops": 0.0, "waits": 0.0, "operator_calls": 0.05, "peak_bytes": 0.05}
IMAGES = 8

UNET32: Mapping[str, Any] = {
    "time_steps": 4,
    "data.shards": "digits",
    "data.wrong_size": "resize",
    "data.workers": 0,
    "energy.channels": 16,
    "buffer.size": 64,
    "train.batch_size": 8,
}
SEEN: Mapping[str, Any] = {"train.precision": "float32", "fast.winograd": "off"}
"""Of the fast path what is the same on every processor, and what the counters can see."""
OFF: Mapping[str, Any] = {"train.fast": "off"}
CASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "digits": ("digits", SEEN),
    "digits, fast off": ("digits", OFF),
    "unet32": ("cifar10_unet", {**UNET32, **SEEN}),
    "unet32, fast off": ("cifar10_unet", {**UNET32, **OFF}),
}
"""What is measured: a recipe, and what is changed in it."""

ADVICE = """
What a step costs differs from tests/cost.json. Where it grew, look for a second forward, a tensor that is kept, a
number that is read (.item(), float()), or work on single images. If that is meant, or if it fell:
  - say in the commit what the cost buys, or what was saved;
  - python tests/test_cost.py
"""


@contextmanager
def warm_trainer(case: str) -> Iterator[Trainer]:
    """A trainer after two steps, so that the optimizer has its state."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = ebmkit.check(*CASES[case], warn=lambda message: None)
        trainer = new_trainer(Path(folder) / "run", recipe)
        trainer.model.train()
        for _ in range(2):
            trainer.train_step()
        yield trainer
        trainer.data.close()


def costs(case: str) -> dict[str, dict[str, int]]:
    with warm_trainer(case) as trainer:
        training = cost_of(trainer.train_step)
        model = Model(trainer.averaged, trainer.recipe, "cpu", {})
        sampling = cost_of(lambda: model.sample(IMAGES))
    return {"training step": training.to_plain(), f"sampling {IMAGES} images": sampling.to_plain()}


def differences(before: Mapping[str, int], now: Mapping[str, int], what: str = "") -> list[str]:
    """A line for each figure that left its slack."""
    return [
        f"{what}: {name} {'grew' if now[name] > before[name] else 'fell'} from {before[name]:,} to {now[name]:,}"
        f" (by {abs(now[name] - before[name]) / max(before[name], 1):.1%}, {SLACK[name]:.0%} are allowed)"
        for name in before
        if abs(now[name] - before[name]) > SLACK[name] * before[name]
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_step_costs_what_it_did(case: str) -> None:
    before, now = json.loads(FIGURES.read_text(encoding="utf-8"))[case], costs(case)
    assert before.keys() == now.keys()
    found = [line for what in before for line in differences(before[what], now[what], f"{case}, {what}")]
    assert not found, ADVICE + "\n".join(found)


def test_flops_are_those_of_the_method() -> None:
    """K Langevin steps of 2 forwards each, 6 for the objective on two batches, 6 for the penalty (docs/method.md)."""
    with warm_trainer("unet32") as trainer:
        recipe = trainer.recipe
        x = torch.zeros(recipe.train.batch_size, *recipe.data.shape)
        with torch.no_grad():
            forward = cost_of(lambda: trainer.model(x, torch.ones(len(x), dtype=torch.int64))).flops
        assert cost_of(trainer.train_step).flops == pytest.approx((2 * 3 + 6 + 6) * forward, rel=0.02)


def _twice_forward(trainer: Trainer) -> None:
    loss, model = trainer.objective.loss, trainer.model

    def dearer(pairs: ebmkit.Pairs) -> ebmkit.Term:
        model(pairs.x_pos, pairs.t)
        return loss(pairs)

    trainer.objective.loss = dearer  # type: ignore[method-assign]


def _reads_a_number(trainer: Trainer) -> None:
    loss = trainer.objective.loss

    def dearer(pairs: ebmkit.Pairs) -> ebmkit.Term:
        term = loss(pairs)
        term.value.item()
        return term

    trainer.objective.loss = dearer  # type: ignore[method-assign]


def _reads_a_mask(trainer: Trainer) -> None:
    draw = trainer.buffer.draw

    def dearer(n: int, generator: torch.Generator) -> ebmkit.Draw:
        drawn = draw(n, generator)
        drawn.x[drawn.t == 1]
        return drawn

    trainer.buffer.draw = dearer  # type: ignore[method-assign]


def _keeps_tensors(trainer: Trainer) -> None:
    kept: list[torch.Tensor] = []
    loss = trainer.objective.loss

    def dearer(pairs: ebmkit.Pairs) -> ebmkit.Term:
        kept.extend(pairs.x_pos.repeat(50, 1, 1, 1) for _ in range(10))
        return loss(pairs)

    trainer.objective.loss = dearer  # type: ignore[method-assign]


def _works_on_single_images(trainer: Trainer) -> None:
    store = trainer.buffer.store

    def dearer(slots: torch.Tensor, x: torch.Tensor) -> None:
        for slot, image in zip(slots.split(1), x.split(1), strict=True):
            store(slot, image)

    trainer.buffer.store = dearer  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("spoil", "grows"),
    [
        (_twice_forward, "flops"),
        (_reads_a_number, "waits"),
        (_reads_a_mask, "waits"),
        (_keeps_tensors, "peak_bytes"),
        (_works_on_single_images, "operator_calls"),
    ],
)
def test_what_makes_a_step_dearer_is_noticed(spoil: Any, grows: str) -> None:
    before = json.loads(FIGURES.read_text(encoding="utf-8"))["digits"]["training step"]
    with warm_trainer("digits") as trainer:
        spoil(trainer)
        now = cost_of(trainer.train_step).to_plain()
    assert any(f"{grows} grew" in line for line in differences(before, now))


def test_counting_changes_no_number() -> None:
    """The same sweep, counted and not."""
    with warm_trainer("digits") as trainer:
        model = trainer.averaged

        def drawn() -> torch.Tensor:
            noise = ebmkit.noise.PerImageNoise(0, range(2), "cpu")
            with frozen(model):
                return sweep(model, trainer.sampler, start_noise(noise, 2, (1, 8, 8), "cpu"), 2, noise)

        counted: list[torch.Tensor] = []
        cost = cost_of(lambda: counted.append(drawn()))
        assert torch.equal(counted[0], drawn())
        assert cost.flops > 0


def test_peak_bytes_are_those_alive_at_once() -> None:
    def work() -> torch.Tensor:
        first = torch.zeros(1000)
        second = first + 1
        view = second.view(10, 100)
        del first, second
        return view * 2

    assert cost_of(work) == Cost(flops=0, operator_calls=4, waits=0, peak_bytes=8000)


if __name__ == "__main__":
    figures = {case: costs(case) for case in CASES}
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
