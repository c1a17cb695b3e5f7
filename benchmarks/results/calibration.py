"""Finished models, drawn with other step sizes: which one would a rule take afterwards, and what does that gain?

    python -m benchmarks.results.calibration calibration_cifar16 runs/results/cifar16_course/recipe_seed-* \
        --extractor efficientnet_lite0 --jobs 2

Two rules: samples with the contrast of real images (the ratio of the standard deviations of pixels is 1), and samples
whose energy at t = 1 is that of real images (Appendix A.1 of the paper, taken on the finished model). Each is decided
on samples of one seed and measured on those of another. Writes docs/results/NAME.md and NAME.json.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.pages import markdown, write_measured
from benchmarks.results.gathering import write
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
RULES = {"contrast": ("contrast", 1.0), "energy": ("gap", 0.0)}
"""What each rule reads, and the value that it wants."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the page")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders with a model, NAME_seed-N")
    parser.add_argument("--reaches", type=float, nargs="+", default=[0.9, 1.0, 1.1, 1.2, 1.35, 1.5])
    parser.add_argument("--decide", type=int, default=256, help="samples that a rule looks at")
    parser.add_argument("--count", type=int, default=1000, help="samples that are measured")
    parser.add_argument("--extractor", help="features to measure by, beside the pixels: efficientnet_lite0")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time")
    parser.add_argument("--out", type=Path, default=PAGES, help="the folder of the page")
    arguments = parser.parse_args()
    features = ("frechet_distance", "kid") if arguments.extractor else ()
    metrics = (*features, "pixel_frechet_distance", *STATISTICS)
    call = partial(
        calibrate,
        reaches=arguments.reaches,
        decide=arguments.decide,
        count=arguments.count,
        extractor=arguments.extractor,
        metrics=metrics,
    )
    models = []
    try:
        for found in in_processes(arguments.jobs, call, [(run,) for run in arguments.runs]):
            console(stderr=True).print(found["model"], found["taken"], markup=False)
            models.append(found)
    except BadInput as error:
        parser.error(str(error))
    words = [
        f"python -m benchmarks.results.calibration {arguments.name} {_shown(arguments.runs)}",
        f"--reaches {' '.join(f'{reach:g}' for reach in arguments.reaches)} --decide {arguments.decide}",
        f"--count {arguments.count} --jobs {arguments.jobs}",
        *([f"--extractor {arguments.extractor}"] if arguments.extractor else []),
    ]
    figures = {
        "command": " ".join(words),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": f"ebmkit {ebmkit.__version__}, torch {torch.__version__}",
        "decide": arguments.decide,
        "count": arguments.count,
        "metrics": list(models[0]["judged"]["as trained"]),
        "models": models,
    }
    write(figures, arguments.out / f"{arguments.name}.json")
    write_measured(arguments.out / f"{arguments.name}.md", _text(figures))


def calibrate(
    run: Path, reaches: Sequence[float], decide: int, count: int, extractor: str | None, metrics: Sequence[str]
) -> dict[str, Any]:
    """What one model's samples are like with each reach, which reach each rule takes, and the metrics with it."""
    torch.set_num_threads(1)
    model = ebmkit.load(run / "model.safetensors")
    options = model.recipe.sampler.options.model_dump()
    if options.get("step_size") != "auto":
        raise BadInput(f'{run}: its sampler.step_size is not "auto", and a reach changes nothing')
    real = from_uint8(all_images(model.recipe.data))
    some = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(DECIDE))[:1000]]
    looked = []
    for reach in sorted(reaches):
        samples = from_uint8(to_uint8(model.sample(decide, DECIDE, overrides={REACH: reach})))
        gap = measure(model, samples, some).gap
        looked.append({"reach": reach, "contrast": pixel_std_ratio(samples, real), "gap": gap})
    taken: dict[str, float | None] = {"as trained": float(options["auto_ratio"])}
    for rule, (key, wanted) in RULES.items():
        taken[rule] = crossing([row["reach"] for row in looked], [row[key] for row in looked], wanted)

    def judged(reach: float) -> dict[str, float]:
        result = ebmkit.evaluate(
            model, count=count, seed=JUDGE, metrics=metrics, extractor=extractor, overrides={REACH: reach}
        )
        return {name: value for name, value in result.items() if name.partition("[")[0] in metrics}

    return {
        "model": run.name,
        "looked": looked,
        "taken": taken,
        "judged": {rule: judged(reach) for rule, reach in taken.items() if reach is not None},
        "by_reach": [{"reach": reach, **judged(reach)} for reach in sorted(reaches)],
    }


def crossing(reaches: Sequence[float], values: Sequence[float], wanted: float) -> float | None:
    """The first reach at which values, joined by straight lines, rise through `wanted`; None if they do not."""
    pairs = list(zip(reaches, values, strict=True))
    for (low, before), (high, after) in itertools.pairwise(pairs):
        if before <= wanted < after:
            return round(low + (high - low) * (wanted - before) / (after - before), 3)
    return None


def _shown(runs: Sequence[Path]) -> str:
    """The folders from `runs/` on: where they lay is no one's business."""
    return " ".join(f"runs/results/{run.parent.name}/{run.name}" for run in runs)


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3g}" + (f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else "")


def _text(figures: dict[str, Any]) -> str:
    lines = [
        f"`{figures['command']}`; {figures['date']}, {figures['versions']}. Means and standard deviations over the "
        f"models of several seeds; decided on {figures['decide']} samples, measured on {figures['count']:,} others. "
        "The energy gap is the energy of real images minus that of samples, in standard deviations of the former.",
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for model in figures["models"]:
        groups.setdefault(model["model"].partition("_seed-")[0], []).append(model)
    for name, models in groups.items():
        lines += ["", f"### {name}", "", _rules(models, figures["metrics"]), "", _curve(models, figures["metrics"])]
    return "\n".join(lines)


def _rules(models: Sequence[dict[str, Any]], metrics: Sequence[str]) -> str:
    """What each rule takes, and how good it is."""
    rows = []
    for rule in ("as trained", *RULES):
        judged = [model["judged"][rule] for model in models if rule in model["judged"]]
        reaches = ", ".join("none" if (r := model["taken"][rule]) is None else f"{r:.3g}" for model in models)
        rows.append([rule, reaches, *(_mean([row[metric] for row in judged]) if judged else "" for metric in metrics)])
    return markdown(["step size by", "reach, by seed", *map(heading, metrics)], rows)


def _curve(models: Sequence[dict[str, Any]], metrics: Sequence[str]) -> str:
    """What samples are like with each reach."""
    rows = []
    for place, row in enumerate(models[0]["by_reach"]):
        same = [model["by_reach"][place] for model in models]
        gaps = [model["looked"][place]["gap"] for model in models]
        rows.append([f"{row['reach']:g}", _mean(gaps), *(_mean([each[metric] for each in same]) for metric in metrics)])
    return markdown(["reach", "energy gap", *map(heading, metrics)], rows)


if __name__ == "__main__":
    main()
