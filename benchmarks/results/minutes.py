"""What some minutes of training make: a recipe, the plain reference with its values, and Table 7 read literally.

    python -m benchmarks.results.minutes cifar16 --minutes 4 --seeds 0 1 2 --jobs 2 --extractor efficientnet_lite0
    python -m benchmarks.results.minutes cifar10_unet --minutes 2 --marks 2      on a GPU

The learning rate stays where it starts, so that no schedule has to know how far a run gets. The clock does not run
while data are decoded, or models are written; it does while a network is compiled. All runs are trained, then all are
measured. They go to FOLDER/minutes_RECIPE, and those that have ended are not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.results import gathering, picture
from benchmarks.results.contest import Values, compete, contestants, measure, model_at
from benchmarks.results.processes import in_processes
from benchmarks.results.publishing import PAGES, publish

import ebmkit
from ebmkit.console import console
from ebmkit.errors import BadInput
from ebmkit.metrics.names import choose
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
    asked = {name: getattr(arguments, name) for name in ("minutes", "marks", "count", "extractor")}
    features = ("frechet_distance", "kid") if arguments.extractor else ()
    asked["metrics"] = (*features, "pixel_frechet_distance", *PLAIN)
    try:
        changes = parse(arguments.changes)
        names = contestants(arguments.recipe, changes)
        # Before minutes are spent on what cannot be measured.
        choose(list(asked["metrics"]), arguments.extractor)
        runs = _run(arguments, names, asked)
    except BadInput as error:
        parser.error(str(error))
    recipe = ebmkit.check(arguments.recipe, changes, warn=lambda text: None)
    seeds = " ".join(map(str, arguments.seeds))
    words = [
        f"python -m benchmarks.results.minutes {arguments.recipe} --minutes {arguments.minutes:g}",
        f"--marks {arguments.marks} --seeds {seeds} --jobs {arguments.jobs} --count {arguments.count}",
        *([f"--extractor {arguments.extractor}"] if arguments.extractor else []),
        *map(gathering.assignment, changes.items()),
    ]
    sweep = _title(arguments.recipe)
    figures = {
        "sweep": sweep,
        "recipe": arguments.recipe,
        "command": " ".join(words),
        **gathering.place_and_time(arguments.jobs),
        "planned": len(runs),
        "minutes": arguments.minutes,
        "batch_size": recipe.train.batch_size,
        "image": list(recipe.data.shape),
        "samples": arguments.count,
        "floor": next((run["floor"] for run in runs.values() if run["floor"]), {}),
        "points": [_point(name, {seed: runs[name, seed] for seed in arguments.seeds}, recipe) for name in names],
    }
    gathering.write(figures, arguments.out / f"{sweep}.json")
    shown = {}
    for name, seed in runs:
        if not runs[name, seed]["error"]:
            folder = _folder(arguments, name, seed)
            shown.setdefault(name, model_at(folder, runs[name, seed]["places"][-1]["mark"]).parent)
    picture.draw_samples(figures, shown, arguments.out / f"{sweep}_samples.png")
    publish(arguments.out / f"{sweep}.json")


def _title(recipe: str) -> str:
    return f"minutes_{Path(recipe).stem}"


def _folder(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    found: Path = arguments.folder / _title(arguments.recipe) / f"{name}_{seed}"
    return found


def _run(
    arguments: argparse.Namespace, names: dict[str, Values], asked: Values
) -> dict[tuple[str, int], dict[str, Any]]:
    """All runs, trained and then measured, by contestant and seed."""
    order = list(names)
    # Each seed begins with another contestant: who runs beside whom is not always the same.
    keys = [(name, seed) for i, seed in enumerate(arguments.seeds) for name in order[i % 3 :] + order[: i % 3]]
    folders = {key: _folder(arguments, *key) for key in keys}
    trained = [
        (arguments.recipe, name, {**names[name], "seed": seed}, folders[name, seed], asked) for name, seed in keys
    ]
    for _ in in_processes(arguments.jobs, compete, trained):
        pass
    found = {}
    measured = [(folder, asked) for folder in folders.values()]
    for key, run in zip(keys, in_processes(arguments.jobs, measure, measured), strict=True):
        end = run["error"] or f"{run['places'][-1]['step']} steps; {run['places'][-1]['metrics']}"
        console(stderr=True).print(f"{key[0]}, seed {key[1]}: {end}", markup=False)
        found[key] = run
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))


def _point(name: str, told: dict[int, Values], recipe: Recipe) -> gathering.Figures:
    """A contestant as the point of an experiment."""
    runs = []
    for seed, found in told.items():
        end = found["places"][-1] if found["places"] else {"seconds": 0.0}
        run = {"seed": seed, "state": "failed" if found["error"] else "done", "error": found["error"]}
        run |= {"rollbacks": found["rollbacks"], "metrics": {}, "seconds": end["seconds"]}
        runs.append(run if found["error"] else run | {"metrics": end["metrics"], "course": found["places"]})
    gradients = recipe.time_steps * recipe.sampler.options.steps
    norm = next((found["norm"] for found in told.values() if found["norm"]), None)
    return {"name": name, "values": {}, "gradients": gradients, "gradient_norm": norm, "runs": runs}


if __name__ == "__main__":
    main()
