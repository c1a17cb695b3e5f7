"""Where the time of a training step and of a gradient goes by kind of operator, with the fast path and without.

    python benchmarks/operators.py --out docs/benchmarks

For the two recipes that have targets on a CPU. torch's profiler counts the time of each operator's own code. Both
sides take turns, and the shares are of their sums. Images are the embedded digits, resized.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from pages import markdown, write_measured
from small_runs import EMBEDDED, new_trainer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import ebmkit
from ebmkit.console import console
from ebmkit.device import cpu_threads
from ebmkit.pipeline import frozen
from ebmkit.trainer import Trainer

KINDS = {
    "convolutions": ("convolution", "weightgradient"),
    "normalisation": ("group_norm", "groupnorm", "layer_norm"),
    "activations": ("silu", "sigmoid"),
    "sub-pixel pooling": ("pixel_",),
    "linear layers": ("addmm", "aten::mm", "aten::bmm"),
}
"""The kinds, and what the names of their operators contain; the rest is elementwise arithmetic, sums, and copies."""
CASES: Mapping[str, Mapping[str, Any]] = {
    "digits": {},
    "cifar10_unet": {"energy.channels": 64, "train.batch_size": 16},
}
REST = "arithmetic, copies, the rest"
SIDES = ("off", "auto")
Seconds = dict[str, float]


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write operators.md there")
    arguments = parser.parse_args()
    text = "\n\n".join(measure(recipe, values, arguments.rounds) for recipe, values in CASES.items())
    text += f"\n\n{arguments.rounds} rounds; ebmkit {ebmkit.__version__}, torch {torch.__version__}."
    console().print(text, markup=False)
    if arguments.out:
        write_measured(arguments.out / "operators.md", text)


def measure(recipe: str, values: Mapping[str, Any], rounds: int) -> str:
    """The table of one recipe."""
    changes = {**EMBEDDED, **values}
    threads = ebmkit.check(recipe, changes, warn=lambda message: None).train.threads
    with cpu_threads(threads), ExitStack() as open_ones:
        trainers = [
            open_ones.enter_context(new_trainer(recipe, {**changes, "train.fast": side}, "cpu")) for side in SIDES
        ]
        training = measured([trainer.train_step for trainer in trainers], rounds)
        drawing = measured([_gradient(trainer) for trainer in trainers], rounds)
        count = torch.get_num_threads()
    words = ", ".join([f"`{recipe}`", *(f"`{key}={value}`" for key, value in values.items()), f"CPU threads: {count}"])
    return f"{words}\n\n{table_of(training, drawing)}"


def kind_of(operator: str) -> str:
    """The kind to which an operator of the profiler's table belongs."""
    found = [kind for kind, parts in KINDS.items() if any(part in operator.lower() for part in parts)]
    return found[0] if found else REST


def measured(calls: list[Callable[[], object]], rounds: int) -> list[Seconds]:
    """Seconds of one call by kind of operator, for each of `calls`, which take turns; the first round warms up."""
    found: list[Seconds] = [dict.fromkeys((*KINDS, REST), 0.0) for _ in calls]
    for number in range(rounds + 1):
        for call, seconds in zip(calls, found, strict=True):
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                call()
            for event in profiler.key_averages() if number else ():
                seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6 / rounds
    return found


def table_of(training: list[Seconds], drawing: list[Seconds]) -> str:
    """Milliseconds by kind and their ratios, as Markdown."""
    header = ["", *(f"{what}, {side}, ms" for what in ("step", "gradient") for side in (*SIDES, "ratio"))]
    header = [title.replace("ratio, ms", "ratio") for title in header]
    rows = []
    for kind in (*KINDS, REST, "all"):
        cells = [kind]
        for off, auto in (training, drawing):
            a, b = (sum(side.values()) if kind == "all" else side[kind] for side in (off, auto))
            cells += [f"{a * 1e3:.1f}", f"{b * 1e3:.1f}", f"{a / b:.2f}" if b else "-"]
        rows.append(cells)
    return markdown(header, rows)


def _gradient(trainer: Trainer) -> Callable[[], Tensor]:
    x = torch.randn(trainer.recipe.train.batch_size, *trainer.recipe.data.shape)
    t = torch.ones(len(x), dtype=torch.int64)

    def gradient() -> Tensor:
        with frozen(trainer.model):
            return ebmkit.energy_gradient(trainer.energy, x, t)

    return gradient


if __name__ == "__main__":
    main()
