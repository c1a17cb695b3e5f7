"""The model card: what a model is, what it took, what was measured, and what it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ebmkit.recipe import Recipe

NAMES = {
    "pixel_frechet_distance": "pixel Fréchet distance (not FID)",
    "fid": "FID",
    "inception_score": "Inception score",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "pixel_std_ratio": "pixel standard deviation / that of the data",
    "neighbour_difference_ratio": "difference of adjacent pixels / that of the data",
    "spectrum_distance": "distance of power spectra (dB)",
    "nearest_image_ratio": "distance to the nearest real image / that of real images",
}
"""Metrics as people name them; others keep the name that they were recorded under."""


@dataclass(frozen=True)
class Facts:
    """What a card is written from."""

    recipe: Recipe
    metadata: Mapping[str, str]
    """Of the model file."""
    parameters: int
    steps_of_chains: int
    """K, Langevin steps at each time step."""
    seconds: float | None
    evaluations: Sequence[Mapping[str, Any]]
    samples: str
    """How the picture came about."""
    license: str | None


def write_card(facts: Facts) -> str:
    """The card as Markdown, with the front matter that the Hugging Face hub reads."""
    sections = [
        _front_matter(facts),
        f"# {facts.recipe.name}\n\nAn image energy-based model, trained by ebmkit "
        f"{facts.metadata['ebmkit']}: `f(x, t)`, low on data, with {facts.parameters:,} parameters. It draws "
        f"{_size(facts.recipe)} images by Langevin dynamics from noise; there is no generator network.",
        f"![Samples](samples.png)\n\n*{facts.samples}*",
        _use(facts),
        _data(facts.recipe),
        _cost(facts),
        _metrics(facts),
        _limits(facts),
        _versions(facts.metadata),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(facts: Facts) -> str:
    # JSON is YAML, and quotes what a name may hold.
    lines = ["---"]
    if facts.license is not None:
        lines.append(f"license: {json.dumps(facts.license)}")
    lines += [
        "library_name: ebmkit",
        "pipeline_tag: unconditional-image-generation",
        "tags: [energy-based-model, langevin-dynamics, image-generation]",
    ]
    metrics = [
        {"type": name, "name": _title(name, row), "value": value}
        for row in facts.evaluations
        for name, value in row["metrics"].items()
        if _is_number(value)
    ]
    if metrics:
        # The hub asks for a data set's type: shards are none of its own.
        data = str(facts.evaluations[-1].get("data") or _shards(facts.recipe))
        result = {
            "task": {"type": "unconditional-image-generation"},
            "dataset": {"type": "webdataset", "name": data},
            "metrics": metrics,
        }
        lines += ["model-index:", f"- name: {json.dumps(facts.recipe.name)}", f"  results: {json.dumps([result])}"]
    return "\n".join([*lines, "---"])


def _use(facts: Facts) -> str:
    return f"""## Load and sample

```python
import ebmkit

model = ebmkit.load(".")  # this folder, or "hf://OWNER/NAME" on the hub
images = model.sample(64, seed=0)  # [64, {", ".join(map(str, facts.recipe.data.shape))}], around [-1, 1]
energies = model(images)  # [64], low where the model sees data
```

`pip install ebmkit`, or `pip install 'ebmkit[hub]'` to load from the hub. `model.safetensors` is all that is read:
weights and the recipe. No code in it is run, and nothing is unpickled."""


def _data(recipe: Recipe) -> str:
    flips = ", mirrored at random" if recipe.data.horizontal_flip else ""
    colour = "grey" if recipe.data.channels == 1 else "RGB"
    return f"## Data\n\n{_size(recipe)} {colour} images of the shards `{_shards(recipe)}`{flips}, scaled to [-1, 1]."


def _cost(facts: Facts) -> str:
    images, steps = int(facts.metadata["images_seen"]), int(facts.metadata["steps"])
    recipe = facts.recipe
    gradients = images * facts.steps_of_chains
    rows = [
        ("steps", f"{steps:,} of {recipe.train.batch_size} images"),
        ("real images seen", f"{images:,}"),
        ("gradient evaluations of chains", f"{gradients:,} of an image (K = {facts.steps_of_chains})"),
        (
            "time",
            "not recorded" if facts.seconds is None else f"{_duration(facts.seconds)}, by the rates that it logged",
        ),
        ("one sample", f"{recipe.time_steps * facts.steps_of_chains} gradient evaluations (T = {recipe.time_steps})"),
    ]
    return "## What training took\n\n" + _table(("", ""), rows)


def _metrics(facts: Facts) -> str:
    rows = [
        (_title(name, row), f"{value:.4g}", _count(row, "samples"), _count(row, "images"), str(row.get("seed", "?")))
        for row in facts.evaluations
        for name, value in row["metrics"].items()
        if _is_number(value)
    ]
    if not rows:
        return "## Metrics\n\nNone: this model was not evaluated before it was exported."
    return "## Metrics\n\n" + _table(("metric", "value", "samples", "real images", "seed"), rows)


def _limits(facts: Facts) -> str:
    return f"""## Limits

- It knows the images that it was trained on, with their biases, and nothing else; it is no filter for content.
- Energies are not normalised: they compare images at one time step, and are no probabilities. `ebmkit likelihood`
  estimates the constant.
- Samples are of one sweep of T = {facts.recipe.time_steps} time steps, and reach the data only with the step size and
  noise of `recipe.toml`.
- Metrics hold for the sample counts and seeds beside them, and compare only with equal ones."""


def _versions(metadata: Mapping[str, str]) -> str:
    plugins = json.loads(metadata["plugins"])
    rows = [("ebmkit", metadata["ebmkit"]), ("torch", metadata["torch"]), *sorted(plugins.items())]
    return "## Versions\n\n" + _table(("part", "version"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def lines() -> Iterator[str]:
        for row in (head, ["---"] * len(head), *rows):
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

    return "\n".join(lines())


def _title(name: str, row: Mapping[str, Any]) -> str:
    extractor = row.get("extractor")
    shown = NAMES.get(name, name)
    return f"{shown}, {extractor}" if extractor and "[" not in name and name != "pixel_frechet_distance" else shown


def _count(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return f"{value:,}" if isinstance(value, int) else "?"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _size(recipe: Recipe) -> str:
    _, height, width = recipe.data.shape
    return f"{width}x{height}"


def _shards(recipe: Recipe) -> str:
    return " ".join(recipe.data.patterns)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
