"""Finished models, drawn with other step sizes: which one would a rule take afterwards, and what does that gain?

    python -m benchmarks.results.calibration calibration_cifar16 runs/results/cifar16_course/recipe_seed-* \
        --extractor efficientnet_lite0 --jobs 2

Two rules: samples with the contrast of real images (the ratio of the standard deviations of pixels is 1), and samples
whose mean energy at t = 1 is that of real images (Appendix A.1 of the paper wants it slightly below). Each is decided
on samples of one seed and measured on those of another. Writes docs/results/NAME.md and NAME.json.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.pages import markdown, write_measured
from benchmarks.results.gathering import place_and_time, write
from benchmarks.results.page import heading
from benchmarks.results.processes import in_processes
from benchmarks.results.publishing import PAGES

import ebmkit
from ebmkit.console import console
from ebmkit.data import all_images
from ebmkit.errors import BadInput
from ebmkit.metrics.names import STATISTICS
from ebmkit.metrics.statistics import pixel_std_ratio
from ebmkit.sampling import from_uint8, to_uint8
from ebmkit.tuning.trials import measure

DECIDE, JUDGE = 1, 0
"""Seeds of the samples that a rule looks at, and of those that are measured afterwards."""
REACH = "sampler.auto_ratio"
RULES = {"equal contrast": ("contrast", 1.0), "equal energy": ("gap", 0.0)}
"""What each rule reads, and the value that it wants."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the page")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders with a model, NAME_seed-N")
    parser.add_argument("--reaches", type=float, nargs="+", default=[0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5])
    parser.add_argument("--decide", type=int, default=1000, help="samples that a rule looks at")
    parser.add_argument("--count", type=int, default=1000, help="samples that are measured")
    parser.add_argument("--extractor", help="features to measure by, beside the pixels: efficientnet_lite0")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--out", type=Path, default=PAGES, help="the folder of the page")
    arguments = parser.parse_args()
    features = ("frechet_distance", "kid") if arguments.extractor else ()
    call = partial(
        calibrate,
        reaches=arguments.reaches,
        decide=arguments.decide,
        count=arguments.count,
        extractor=arguments.extractor,
        metrics=(*features, "pixel_frechet_distance", *STATISTICS),
    )
    models = []
    try:
        for found in in_processes(arguments.jobs, call, [(run,) for run in arguments.runs]):
            console(stderr=True).print(found["model"], found["taken"], markup=False)
            models.append(found)
    except BadInput as error:
        parser.error(str(error))
    words = [
        f"python -m benchmarks.results.calibration {arguments.name} {' '.join(map(_shown, arguments.runs))}",
        f"--reaches {' '.join(f'{reach:g}' for reach in arguments.reaches)} --decide {arguments.decide}",
        f"--count {arguments.count} --jobs {arguments.jobs}",
        *([f"--extractor {arguments.extractor}"] if arguments.extractor else []),
    ]
    figures = {
        "command": " ".join(words),
        **place_and_time(arguments.jobs),
        "decide": arguments.decide,
        "count": arguments.count,
        "models": models,
    }
    write(figures, arguments.out / f"{arguments.name}.json")
    write_measured(arguments.out / f"{arguments.name}.md", _text(figures))


def calibrate(
    run: Path, reaches: Sequence[float], decide: int, count: int, extractor: str | None, metrics: Sequence[str]
) -> dict[str, Any]:
    """What one model's samples are like with each reach, which reach each rule takes, and the metrics with it."""
    begin = time.perf_counter()
    torch.set_num_threads(1)
    model = ebmkit.load(run / "model.safetensors")
    options = model.recipe.sampler.options.model_dump()
    if options.get("step_size") != "auto":
        raise BadInput(f'{run}: its sampler.step_size is not "auto", and a reach changes nothing')
    real = from_uint8(all_images(model.recipe.data))
    some = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(DECIDE))[:1000]]
    evaluate = partial(ebmkit.evaluate, model, count=count, seed=JUDGE, metrics=metrics, extractor=extractor)

    def judged(reach: float) -> dict[str, float]:
        result = evaluate(overrides={REACH: reach})
        return {name: value for name, value in result.items() if name.partition("[")[0] in metrics}

    rows = []
    for reach in sorted(reaches):
        samples = from_uint8(to_uint8(model.sample(decide, DECIDE, overrides={REACH: reach})))
        gap = measure(model, samples, some).gap
        looked = {"reach": reach, "contrast": pixel_std_ratio(samples, real), "gap": gap}
        rows.append({**looked, "metrics": judged(reach)})
    taken: dict[str, float | str] = {"as trained": float(options["auto_ratio"])}
    for rule, (key, wanted) in RULES.items():
        taken[rule] = crossing([row["reach"] for row in rows], [row[key] for row in rows], wanted)
    found = {rule: judged(reach) for rule, reach in taken.items() if isinstance(reach, float)}
    # The floor is of two halves of the data.
    floor = evaluate(floor=True)["floor"] if len(real) >= 2 * count else {}
    return {
        "model": f"{run.parent.name}/{run.name}",
        "rows": rows,
        "taken": taken,
        "metrics": found,
        "floor": floor,
        "seconds": time.perf_counter() - begin,
    }


def crossing(reaches: Sequence[float], values: Sequence[float], wanted: float) -> float | str:
    """The first reach at which values, joined by straight lines, rise to `wanted`; or in words why there is none."""
    pairs = [pair for pair in zip(reaches, values, strict=True) if math.isfinite(pair[1])]
    for (low, before), (high, after) in itertools.pairwise(pairs):
        if before <= wanted <= after and before < after:
            return round(low + (high - low) * (wanted - before) / (after - before), 3)
    if all(value > wanted for _, value in pairs):
        return f"above from {min(reaches):g} on"
    return f"not reached by {max(reaches):g}" if all(value < wanted for _, value in pairs) else "only falls to it"


def _shown(run: Path) -> str:
    """As it was given; where a folder lies on the disk is no one's business."""
    return f"{run.parent.name}/{run.name}" if run.is_absolute() else str(run)


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3g}" + (f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else "")


def _text(figures: dict[str, Any]) -> str:
    models = figures["models"]
    seconds = statistics.mean(model["seconds"] for model in models)
    lines = [
        f"`{figures['command']}`; {figures['date']}, {figures['versions']}; {figures['machine']}, {seconds:.0f} s a "
        "model. Means and standard deviations over the models of several seeds; decided on "
        f"{figures['decide']:,} samples, measured on {figures['count']:,} others. The energy gap is the energy of real "
        "images minus that of samples at t = 1, in standard deviations of the former.",
    ]
    if floor := next((model["floor"] for model in models if model["floor"]), {}):
        told = ", ".join(f"{heading(metric)} {value:.3g}" for metric, value in floor.items())
        lines += ["", f"Floor, as many real images against the other ones: {told}."]
    groups: dict[str, list[dict[str, Any]]] = {}
    for model in models:
        groups.setdefault(model["model"].partition("_seed-")[0], []).append(model)
    for name, group in groups.items():
        lines += ["", f"### {name}", "", _rules(group), "", _curve(group)]
    return "\n".join(lines)


def _rules(models: Sequence[dict[str, Any]]) -> str:
    """What each rule takes, and how good it is."""
    metrics, rows = list(models[0]["rows"][0]["metrics"]), []
    for rule in ("as trained", *RULES):
        found = [model["metrics"][rule] for model in models if rule in model["metrics"]]
        reaches = ", ".join(str(model["taken"][rule]) for model in models)
        cells = [_mean([row[metric] for row in found]) if len(found) == len(models) else "" for metric in metrics]
        rows.append([rule, reaches, *cells])
    return markdown(["step size by", "reach, by seed", *map(heading, metrics)], rows)


def _curve(models: Sequence[dict[str, Any]]) -> str:
    """What samples are like with each reach."""
    metrics, rows = list(models[0]["rows"][0]["metrics"]), []
    for same in zip(*(model["rows"] for model in models), strict=True):
        cells = [_mean([row["metrics"][metric] for row in same]) for metric in metrics]
        rows.append([f"{same[0]['reach']:g}", ", ".join(f"{row['gap']:.2f}" for row in same), *cells])
    return markdown(["reach", "energy gap, by seed", *map(heading, metrics)], rows)


if __name__ == "__main__":
    main()
