"""What a run writes is what docs/recipes.md says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

import ebmkit
from docs_pages import text_of
from ebmkit.lifecycle import ERROR_LOG


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"train.steps": 2, "train.batch_size": 4, "train.log_every": 1, "train.sample_every": 2}
    small |= {"train.sample_count": 1, "energy.channels": 8, "buffer.size": 8, "train.device": "cpu"}
    small |= {"trackers": [{"use": "csv"}, {"use": "tensorboard"}]}
    outcome = ebmkit.train("digits", small, tmp_path_factory.mktemp("docs") / "run")
    ebmkit.evaluate(outcome.model, count=2)
    return outcome.folder


def section(heading: str) -> str:
    """The text of recipes.md from this heading to the next of the same or a higher level."""
    _, found, rest = text_of("recipes.md").partition(f"\n{heading}\n")
    assert found, heading
    level = heading.split(" ")[0]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def keys_in(text: str) -> list[str]:
    """What stands in code in the first cell of each row."""
    return [key for row in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)]


def test_metrics_are_documented(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    everyones, others = section("### Metrics").split("The objective and the regularizers add theirs:")
    assert set(keys_in(everyones)) <= lines[-1].keys()
    assert lines[-1].keys() <= {*keys_in(everyones), *keys_in(others)}


def test_model_metadata_is_documented(run: Path) -> None:
    with safe_open(run / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert set(keys_in(section("## The model file"))) == metadata.keys()


def test_run_folder_is_documented(run: Path) -> None:
    documented = section("## The run folder")
    names = {re.sub(r"\d{9}", "N", path.relative_to(run).as_posix()) for path in run.glob("**/*") if path.is_file()}
    plain = re.sub(r"\d{9}", "N", documented)
    trackers = {"metrics.csv", "evaluations.csv"}
    assert trackers <= names
    assert any(name.startswith("tensorboard/") for name in names)
    for name in names:
        top, inside, _ = name.partition("/")
        folder, _, file = name.rpartition("/")
        # A tracker's folder is its own.
        whole = inside and f"| `{top}/` |" in plain
        assert f"`{name}`" in plain or whole or (f"`{folder}/`" in plain and f"`{file}`" in plain), name
    assert f"`{ERROR_LOG}`" in plain
