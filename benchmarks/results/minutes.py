"""What some minutes of training make: a recipe, the plain reference with its values, and Table 7 read literally.

    python -m benchmarks.results.minutes cifar16 --minutes 4 --seeds 0 1 2 --jobs 2
    python -m benchmarks.results.minutes cifar10_unet --minutes 3            on a GPU, in one call of ten minutes

The learning rate stays where it starts, so that no schedule has to know how far a run gets. The clock does not run
while data are decoded, models are written or measured; it does while a network is compiled. Runs go to
FOLDER/minutes_RECIPE, and those that have ended are not repeated.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.results import gathering, picture
from benchmarks.results.contest import contestants, one
from benchmarks.results.publishing import PAGES, publish

import ebmkit
from ebmkit.console import console
from ebmkit.overrides import parse
from ebmkit.recipe import Recipe

PLAIN = "pixel_std_ratio", "neighbour_difference_ratio", "spectrum_distance", "nearest_image_ratio"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, for each run")
    parser.add_argument("--marks", type=int, default=4, help="times at which a model is measured")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--count", type=int, default=1000, help="samples of each model")
    parser.add_argument("--extractor", help="features to measure by, beside the pixels: efficientnet_lite0")
    parser.add_argument("--folder", type=Path, default=Path("runs/results"), help="where the runs go")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--out", type=Path, default=PAGES, help="the folder of the pages")
    arguments = parser.parse_args()
    changes = parse(arguments.changes)
    names = contestants(arguments.recipe, changes)
    features = ("frechet_distance", "kid") if arguments.extractor else ()
    asked = {name: getattr(arguments, name) for name in ("minutes", "marks", "count", "extractor")}
    asked["metrics"] = (*features, "pixel_frechet_distance", *PLAIN)
    sweep = f"minutes_{Path(arguments.recipe).stem}"
    folder, say = arguments.folder / sweep, console(stderr=True).print
    # A process for each run: they leave nothing behind for the next one.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context, max_tasks_per_child=1) as pool:
        waiting = {
            (name, seed): pool.submit(
                one, arguments.recipe, name, {**values, "seed": seed}, folder / f"{name}_{seed}", asked
            )
            for seed in arguments.seeds
            for name, values in names.items()
        }
        found = {}
        for key, future in waiting.items():
            found[key] = future.result()
            end = found[key]["places"][-1]
            say(f"{key[0]}, seed {key[1]}: {end['step']} steps; {end['metrics']}", markup=False)
    recipe = ebmkit.check(arguments.recipe, changes, warn=lambda text: None)
    seeds = " ".join(map(str, arguments.seeds))
    words = [
        f"python -m benchmarks.results.minutes {arguments.recipe} --minutes {arguments.minutes:g}",
        f"--marks {arguments.marks} --seeds {seeds} --jobs {arguments.jobs} --count {arguments.count}",
        *([f"--extractor {arguments.extractor}"] if arguments.extractor else []),
        *map(gathering.assignment, changes.items()),
    ]
    figures = {
        "sweep": sweep,
        "recipe": arguments.recipe,
        "command": " ".join(words),
        **gathering.place_and_time(arguments.jobs),
        "planned": len(found),
        "minutes": arguments.minutes,
        "batch_size": recipe.train.batch_size,
        "image": list(recipe.data.shape),
        "samples": arguments.count,
        "floor": next(iter(found.values()))["floor"],
        "points": [_point(name, [found[name, seed] for seed in arguments.seeds], recipe) for name in names],
    }
    gathering.write(figures, arguments.out / f"{sweep}.json")
    shown = {name: folder / f"{name}_{arguments.seeds[0]}" / f"{arguments.minutes:g}" for name in names}
    picture.draw_samples(figures, shown, arguments.out / f"{sweep}_samples.png")
    publish(arguments.out / f"{sweep}.json")


def _point(name: str, told: list[Mapping[str, Any]], recipe: Recipe) -> gathering.Figures:
    """A contestant as the point of an experiment."""
    runs = []
    for found in told:
        end = found["places"][-1]
        run = {"seed": found["seed"], "state": "done", "error": None, "rollbacks": found["rollbacks"]}
        runs.append(run | {"metrics": end["metrics"], "seconds": end["seconds"], "course": found["places"]})
    gradients = recipe.time_steps * recipe.sampler.options.steps
    return {"name": name, "values": {}, "gradients": gradients, "gradient_norm": told[0]["norm"], "runs": runs}


if __name__ == "__main__":
    main()
