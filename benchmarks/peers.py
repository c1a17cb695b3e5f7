"""ebmkit beside torchebm, in one process: drawing images and training steps, of the same network with the same work.

    pip install -e '.[peers]'
    python benchmarks/peers.py --out docs/benchmarks
    python benchmarks/peers.py cifar10_unet --device cuda --channels 128 --batch 256 --json peers.json

Both draw images by as many Langevin steps from noise, and take as many training steps: K Langevin steps from a replay
buffer of equal size, contrastive divergence, AdamW and a moving average of the weights, in float32. torchebm knows no
time step, so T is 1, and no gradient penalty, so there is none on either side. That the samplers do the same is
checked first: from the same noise they give the same images. The two take turns; the ratio is that of the medians, with
the lowest and the highest of a single round beside it.

On the CPU it is processor time of one thread that is measured, so that other work on the machine hardly counts; on
another device, the time to the end of what it was given.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pages import markdown, write_measured
from rich.console import Console
from rich.table import Table
from small_runs import EMBEDDED, new_trainer

from ebmkit.errors import EbmkitError
from ebmkit.model import Model
from ebmkit.noise import GeneratorNoise
from ebmkit.overrides import parse
from ebmkit.pipeline import frozen
from ebmkit.trainer import Trainer

try:
    from peer_torchebm import Peer
except ImportError as error:
    if error.name is None or error.name.partition(".")[0] != "torchebm":
        raise
    Peer = None
STEP_SIZE, NOISE = 0.5, 0.05


@dataclass(frozen=True)
class Comparison:
    """Seconds of each round of the two, and the rounds' ratios: how many times as fast ebmkit is."""

    work: str
    images: int
    ebmkit: list[float]
    torchebm: list[float]

    @property
    def ratios(self) -> list[float]:
        """Of each round."""
        return [theirs / ours for ours, theirs in zip(self.ebmkit, self.torchebm, strict=True)]


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="cifar10_unet")
    parser.add_argument("--channels", type=int, default=32, help="width of the network")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="Langevin steps, K")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write peers.json and the measured part of peers.md into it"
    )
    arguments = parser.parse_args()
    if Peer is None:
        print("skipped: torchebm is not installed (pip install -e '.[peers]')")  # noqa: T201
        return
    torch.set_num_threads(1)
    try:
        found, difference = measure(arguments)
    except EbmkitError as error:
        parser.error(str(error))
    report(found, difference, arguments)


def measure(arguments: argparse.Namespace) -> tuple[list[Comparison], float]:
    """Both comparisons, and the largest difference between the samplers."""
    with new_trainer(arguments.recipe, settings(arguments), arguments.device) as trainer:
        peer = Peer(trainer, STEP_SIZE, NOISE)
        difference = largest_difference(trainer, peer)
        return [drawing(trainer, peer, arguments.rounds), training(trainer, peer, arguments.rounds)], difference


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What both can do: one time step, constant step size and noise, persistent chains, no penalty."""
    return {
        **EMBEDDED,
        "time_steps": 1,
        "energy.channels": arguments.channels,
        "sampler": {"use": "langevin", "steps": arguments.steps, "step_size": STEP_SIZE, "noise": NOISE},
        "buffer": {"use": "persistent", "size": 10_000, "reinitialize": 0.0},
        "regularizers": [],
        "train.batch_size": arguments.batch,
        **parse(arguments.changes),
    }


def largest_difference(trainer: Trainer, peer: Peer) -> float:
    """Between the images that the two samplers make of the same noise."""
    recipe, device = trainer.recipe, trainer.device
    x = torch.randn(4, *recipe.data.shape, generator=torch.Generator(device).manual_seed(0), device=device)
    with frozen(trainer.model):
        t = torch.ones(len(x), dtype=torch.int64, device=device)
        noise = GeneratorNoise(torch.Generator(device).manual_seed(1))
        ours = trainer.sampler.refine(trainer.model, x, t, noise)
    theirs = peer.refine(x, torch.Generator(device).manual_seed(1))
    difference = float((ours - theirs).abs().max())
    # Rounding alone; another step size or noise would be off by thousands of times as much.
    assert difference < 1e-3, f"the samplers differ by {difference}: this compares different work"
    return difference


def drawing(trainer: Trainer, peer: Peer, rounds: int) -> Comparison:
    """A batch of images from noise, by the interfaces that users call."""
    model = Model(copy.deepcopy(trainer.averaged), trainer.recipe, trainer.device, {})
    count = trainer.recipe.train.batch_size
    ours, theirs = lambda: model.sample(count, batch_size=count), lambda: peer.draw(count)
    return compared("drawing", count, ours, theirs, rounds, trainer.device)


def training(trainer: Trainer, peer: Peer, rounds: int) -> Comparison:
    """A training step, with its data."""
    count = trainer.recipe.train.batch_size
    return compared("training step", count, trainer.train_step, peer.train_step, rounds, trainer.device)


def compared(
    work: str, images: int, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, device: str
) -> Comparison:
    """The two in turn, after two calls of each; who comes first changes from round to round."""
    for _ in range(2):
        ours(), theirs()
    times: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        print(f"{work}: round {number + 1} of {rounds}", file=sys.stderr)  # noqa: T201
        for call in (ours, theirs) if number % 2 else (theirs, ours):
            times[call].append(seconds(call, device))
    return Comparison(work, images, times[ours], times[theirs])


def seconds(call: Callable[[], Any], device: str) -> float:
    """Of one call, to the end of what it has the device do."""
    if device == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.accelerator.synchronize(device)
    start = time.perf_counter()
    call()
    torch.accelerator.synchronize(device)
    return time.perf_counter() - start


HEADER = ("", "ebmkit", "torchebm", "ratio", "lowest", "highest")


def report(found: list[Comparison], difference: float, arguments: argparse.Namespace) -> None:
    """Print the table, and write the numbers and the page."""
    cells = [row(one) for one in found]
    table = Table(*HEADER, box=None, header_style="bold")
    for one in cells:
        table.add_row(*one)
    console = Console(width=100)
    console.print(table)
    console.print(f"Largest difference between the two samplers' images from the same noise: {difference:.1g}")
    names = ("ebmkit", "torch", "torchebm")
    versions = {name: version(name) for name in names}
    rows = [asdict(one) | {"ratios": one.ratios} for one in found]
    plain = {**versions, "command": sys.argv, "difference": difference, "rows": rows}
    text = json.dumps(plain, indent=2) + "\n"
    if arguments.json:
        arguments.json.write_text(text, encoding="utf-8")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "peers.json").write_text(text, encoding="utf-8")
        numbers = ", ".join(f"{name} {number.partition('+')[0]}" for name, number in versions.items())
        size = f"{arguments.channels} channels, batch {arguments.batch}, K = {arguments.steps}"
        where = f"{arguments.device}, {arguments.rounds} rounds; {numbers}"
        told = f"`{arguments.recipe}`, {size}, {where}. Largest difference of the samplers: {difference:.1g}."
        write_measured(arguments.out / "peers.md", f"{markdown(HEADER, cells)}\n\n{told}")


def row(one: Comparison) -> tuple[str, ...]:
    """The table's cells."""
    ours, theirs = median(one.ebmkit), median(one.torchebm)
    rates = (f"{one.images / seconds:.1f} images/s" for seconds in (ours, theirs))
    return one.work, *rates, *(f"{ratio:.2f}" for ratio in (theirs / ours, min(one.ratios), max(one.ratios)))


if __name__ == "__main__":
    main()
