"""What moves the metrics: real images, damaged in known ways, measured as samples are.

    python -m benchmarks.results.damage cifar16 --set data.shards='shards/cifar10/train-{000000..000009}.tar'

Every second image is damaged, and compared with the others. Writes docs/results/damage.md and damage.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from benchmarks.pages import markdown, write_measured
from benchmarks.results.gathering import assignment, write
from benchmarks.results.page import heading
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

import ebmkit
from ebmkit.console import console
from ebmkit.data import all_images
from ebmkit.metrics import comparing, names
from ebmkit.metrics.networks import Network, bind_extractor, label_of, own, pixels
from ebmkit.overrides import parse
from ebmkit.sampling import from_uint8, to_uint8

EXTRACTOR = "efficientnet_lite0"
METRICS = ("frechet_distance", "kid", names.PIXELS, *names.STATISTICS)
ROOT = Path(__file__).resolve().parents[2]


def _contrast(factor: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, _: (x - x.mean()) * factor + x.mean()


def _noise(sigma: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, _: x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def _blur(sigma: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, _: gaussian_blur(x, [7, 7], [sigma, sigma])


DAMAGES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none: the floor": lambda x, _: x,
    "contrast x 0.7": _contrast(0.7),
    "contrast x 1.3": _contrast(1.3),
    "contrast x 1.9": _contrast(1.9),
    "blur, sigma 0.5 pixels": _blur(0.5),
    "blur, sigma 1": _blur(1.0),
    "noise of 0.05": _noise(0.05),
    "noise of 0.2": _noise(0.2),
    "no colour": lambda x, _: x.mean(1, keepdim=True).expand_as(x),
    "copies of the others": lambda _, others: others,
}
"""Of images and the ones that they are compared with, in [-1, 1]."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--count", type=int, default=1000, help="images to damage")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results", help="the folder of the page")
    arguments = parser.parse_args()
    changes = parse(arguments.changes)
    recipe = ebmkit.check(arguments.recipe, changes, warn=lambda message: None)
    images = from_uint8(all_images(recipe.data))
    damaged, others = images[0 : 2 * arguments.count : 2], images[1::2]
    part = bind_extractor(EXTRACTOR)
    networks = [own(part, recipe.context("cpu")), pixels()]
    chosen = names.choose(METRICS, label_of(part))
    real = features(networks, others)
    rows = {}
    for name, damage in DAMAGES.items():
        samples = features(networks, damage(damaged, others[: len(damaged)]))
        rows[name] = comparing.compare(chosen, samples, real, recipe.data.shape, "cpu", lambda done, total: None)
        console(stderr=True).print(name, rows[name], markup=False)
    command = " ".join([f"python -m benchmarks.results.damage {arguments.recipe}", *map(assignment, changes.items())])
    figures = {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": f"ebmkit {ebmkit.__version__}, torch {torch.__version__}",
        "counts": [len(damaged), len(others)],
        "rows": rows,
    }
    write(figures, arguments.out / "damage.json")
    write_measured(arguments.out / "damage.md", _text(figures))


def features(networks: list[Network], images: Tensor) -> dict[str, Tensor]:
    """Features of images as they would be written to a file: 8 bits a value."""
    written = from_uint8(to_uint8(images))
    batches = [[network.compute(part) for network in networks] for part in torch.split(written, 250)]
    found = [{name: value for computed in batch for name, value in computed.items()} for batch in batches]
    return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


def _text(figures: dict[str, Any]) -> str:
    metrics = list(next(iter(figures["rows"].values())))
    damaged, others = figures["counts"]
    lines = [[name, *(f"{row[metric]:.3g}" for metric in metrics)] for name, row in figures["rows"].items()]
    return "\n".join(
        [
            f"`{figures['command']}`; {figures['date']}, {figures['versions']}. {damaged:,} damaged images against "
            f"{others:,} others.",
            "",
            markdown(["damage", *map(heading, metrics)], lines),
        ]
    )


if __name__ == "__main__":
    main()
