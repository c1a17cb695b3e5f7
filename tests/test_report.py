"""What a report says of runs, and how it stays within its size."""

from __future__ import annotations

import base64
import json
import math
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import ebmkit
from ebmkit.errors import BadInput
from ebmkit.reporting.comparing import compare
from ebmkit.reporting.cost import cost_of
from ebmkit.reporting.curves import Curves, extremes
from ebmkit.reporting.page import render
from ebmkit.reporting.reading import read_header, read_runs
from ebmkit.reporting.words import NOTHING
from report_runs import HOSTILE, hostile_run, train_runs, write_lines, write_picture, write_run
from run_helpers import environment, run_cli, tiny_table


class Reader(HTMLParser):
    """The elements of a page, its text outside of scripts, and the data that its script draws from."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.texts).split())
        self.data: Any = json.loads(self.scripts[0])

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        where = self.open[-1] if self.open else ""
        if where == "script":
            self.scripts.append(text)
        elif where != "style":
            self.texts.append(text)


def page_of(*runs: Path, max_mb: float = 20) -> Reader:
    return Reader(render(read_runs(runs), int(max_mb * 1e6)).html)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return train_runs(tmp_path_factory.mktemp("runs"))


# --- Two trained runs ------------------------------------------------------------------------------------------------


def test_a_report_of_two_runs_from_the_command_line(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = run_cli("report", *runs, "--out", out)
    assert done.code == 0, done.err
    assert done.out == f"{out}: {out.stat().st_size / 1e6:.1f} MB; sample grids: 5 of 5\n"
    page = Reader(out.read_text(encoding="utf-8"))
    assert page.open == []
    assert "2 runs: one, two" in page.text
    assert "step 6 of 6" in page.text
    assert f"ebmkit {ebmkit.__version__} {ebmkit.__version__} torch " in page.text
    # 6 steps of batch 8 with K = 2; T * K = 4 * 2 for a drawn image.
    assert re.search(r"one 6 48 \S+ s \S+ [\d,]+ MB 96 8 ", page.text)


def test_curves_are_the_metrics(runs: list[Path]) -> None:
    charts = {chart["name"]: chart for chart in page_of(*runs).data["charts"]}
    loss = charts["loss"]["lines"]
    assert [(line["run"], line["label"]) for line in loss] == [(0, "one"), (1, "two")]
    for line, run in zip(loss, runs, strict=True):
        rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
        assert line["steps"] == [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
        assert line["values"] == pytest.approx([row["loss"] for row in rows], rel=1e-5)
    energies = charts["energy_data"]["lines"]
    assert [(line["label"], line["dashed"]) for line in energies] == [
        *(("one, data", False), ("two, data", False), ("one, samples", True), ("two, samples", True))
    ]
    assert {"wgan_lp/penalty", "gradient_norm", "learning_rate", "images_per_second"} <= charts.keys()
    # No image was skipped, and neither step nor time is a curve.
    assert charts.keys().isdisjoint({"skipped_images", "step", "images", "seconds", "energy_samples"})


def test_sample_grids_are_the_files(runs: list[Path]) -> None:
    page = page_of(*runs)
    assert [grid["steps"] for grid in page.data["grids"]] == [[3, 6], [2, 4, 6]]
    for grid, run in zip(page.data["grids"], runs, strict=True):
        for step, uri in zip(grid["steps"], grid["pictures"], strict=True):
            kind, _, content = uri.partition(",")
            assert kind == "data:image/png;base64"
            assert base64.b64decode(content) == (run / "samples" / f"step-{step:09d}.png").read_bytes()
    # Without scripts the newest ones show.
    images = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    assert images == [grid["pictures"][-1] for grid in page.data["grids"]]


def test_differences_of_the_recipes_are_marked(runs: list[Path]) -> None:
    page = render(read_runs(runs), 10**7).html
    marked = re.findall(r'<tr class="differs"><th><code>([\w.]+)</code>', page)
    assert marked == ["seed", "train.sample_every"]
    assert "<code>seed</code></th><td><code>3</code></td><td><code>9</code></td>" in page
    # Each recipe can be taken out whole.
    text = Reader(page).text
    assert " ".join((runs[0] / "recipe.toml").read_text().split()) in text


def test_the_python_interface_writes_the_same(runs: list[Path], tmp_path: Path) -> None:
    assert ebmkit.report(runs[0], tmp_path / "one.html") == tmp_path / "one.html"
    page = Reader((tmp_path / "one.html").read_text(encoding="utf-8"))
    assert "Run one" in page.text
    assert {line["run"] for chart in page.data["charts"] for line in chart["lines"]} == {0}


def test_torch_is_not_imported(runs: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys, ebmkit\n"
        f"ebmkit.report({[str(run) for run in runs]!r}, {str(tmp_path / 'r.html')!r})\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'matplotlib', 'http') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment(), check=True
    )
    assert done.stdout == "[]\n"


# --- What may stand in a run folder ----------------------------------------------------------------------------------


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "new"))
    assert "step 0 of 6" in page.text
    assert "none yet" in page.text
    headings = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert headings == ["runs", "cost", "recipe"]


def test_evaluations_and_pictures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [{"step": 10, "loss": 1.0}])
    write_picture(run / "plots" / "trajectory.png", 1)
    write_picture(run / "plots" / "nearest_neighbours.png", 2)
    write_picture(run / "plots" / ".half-01234567.png", 3)
    (run / "plots" / "trajectory.json").write_text("{}")
    (run / "plots" / "no-picture.png").write_text("<svg onload=alert(1)>")
    metrics = {"fid": 12.3456, "kid[lite0]": 0.5, "precision": math.nan}
    write_lines(run / "evaluations.jsonl", [{"time": "2026-11-24T18:40:11+01:00", "step": 5, "metrics": metrics}])
    with (run / "evaluations.jsonl").open("a") as file:
        file.write('["no table"]\n{"metrics": 7, "data": "digits"}\n{"time": "20')
    page = page_of(run)
    assert "FID ↓ KID by lite0 ↓ precision ↑ samples" in page.text
    rows = "run 5 12.35 0.5 nan - - - - - 2026-11-24 17:40 UTC run - - - - - - - digits - -"
    assert rows in page.text.replace(NOTHING, "-")
    assert re.search("Pictures nearest neighbours trajectory Metrics", page.text)
    assert sum(tag == "img" for tag, _ in page.elements) == 2
    assert "pictures: 2 of 3" in page.text


def test_an_evaluation_with_another_sampler_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [{"step": 10, "loss": 1.0}])
    changed = {"sampler.steps": 6, "sampler.noise": {"use": "constant"}}
    rows = [{"step": 5, "metrics": {"fid": 1.0}}, {"step": 5, "metrics": {"fid": 2.0}, "overrides": changed}]
    write_lines(run / "evaluations.jsonl", rows)
    text = page_of(run).text.replace(NOTHING, "-")
    assert "data extractor sampler time" in text
    assert "run 5 1 - - - - - - - run 5 2 - - - - - steps=6 noise={'use': 'constant'} -" in text


def test_nothing_breaks_out_of_the_page(tmp_path: Path) -> None:
    page = render(read_runs([hostile_run(tmp_path)]), 10**7).html
    reader = Reader(page)
    assert reader.open == []
    assert page.count("<script") == page.count("</script>") == 2
    assert reader.data["charts"][1]["name"] == HOSTILE
    # It shows as the text that it is, wherever it stood: the title, the recipe, the versions, the metrics.
    assert reader.text.count(HOSTILE) > 10
    assert not [attributes for _, attributes in reader.elements if any(key.startswith("on") for key in attributes)]


def test_nothing_of_other_sites_is_named(runs: list[Path]) -> None:
    page = render(read_runs(runs), 10**7).html
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page))
    # The name of a namespace is no address that is fetched.
    assert addresses == {"http://www.w3.org/2000/svg"}
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_lines_of_metrics_that_are_none_are_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    lines = ['{"step": 1, "loss": 2, "late": "x"}', "", "[1]", "{", '{"loss": 5}', '{"step": NaN, "loss": 1}']
    lines += ['{"step": 3, "loss": Infinity, "late": 4}', '{"step": 4, "loss": true, "late": 1e999}', '{"step": 9, "l']
    (run / "metrics.jsonl").write_text("\n".join(lines))
    charts = {chart["name"]: chart["lines"][0] for chart in page_of(run).data["charts"]}
    assert charts["loss"]["steps"] == charts["late"]["steps"] == [1, 3, 4]
    assert charts["loss"]["values"] == [2, None, None]
    assert charts["late"]["values"] == [None, 4, None]


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x09" + b"\0" * 7 + b'{"a":'])
def test_a_damaged_model_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert read_header(tmp_path / "model.safetensors") == {}


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name / "run") for name in ("a", "b")]
    assert [run.label for run in read_runs(folders)] == ["a/run", "b/run"]
    assert [run.label for run in read_runs([folders[0], folders[0]])] == ["run"]


def test_the_time_of_older_runs_comes_from_their_rate(tmp_path: Path) -> None:
    row = {"step": 20, "images": 640, "images_per_second": 32.0}
    old, new = (write_run(tmp_path / name, [row | more]) for name, more in (("old", {}), ("new", {"seconds": 35.5})))
    assert [cost_of(run).seconds for run in read_runs([old, new])] == [20.0, 35.5]


# --- Size ------------------------------------------------------------------------------------------------------------


def test_thinned_curves_keep_their_extremes_and_gaps() -> None:
    values = [math.sin(i / 500) for i in range(20_000)]
    values[7_777], values[12_345], values[15_000] = 9.0, -9.0, math.nan
    kept = extremes(values, 200)
    assert len(kept) <= 200
    assert {0, 7_777, 12_345, 15_000, 19_999} <= set(kept)
    assert kept == sorted(kept)
    # Nowhere is a long stretch without a point.
    assert max(b - a for a, b in pairwise(kept)) < 20_000 // 50
    assert extremes(values[:200], 200) == list(range(200))


def test_a_metric_that_comes_late_has_a_gap_before() -> None:
    curves = Curves()
    for step in range(5):
        curves.add({"step": step, "loss": 1} | ({"late": step} if step > 2 else {}))
    assert curves.thinned("late", 100) == ([0, 1, 2, 3, 4], [None, None, None, 3, 4])


def test_the_size_is_kept_by_leaving_grids_out_evenly(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": step / 7, "a": -step / 3, "b": 1 / (1 + step)} for step in range(0, 60_000, 10)]
    run = write_run(tmp_path / "run", rows, range(1000, 61_000, 1000), side=200)
    assert sum(path.stat().st_size for path in run.glob("samples/*.png")) > 6_000_000
    page = render(read_runs([run]), 2_000_000)
    assert 1_000_000 < len(page.html.encode()) < 2_000_000
    (grid,) = Reader(page.html).data["grids"]
    assert 8 <= len(grid["steps"]) < 60
    assert grid["steps"][-1] == 60_000
    gaps = {b - a for a, b in pairwise(grid["steps"])}
    assert max(gaps) <= 2 * min(gaps)
    assert f"sample grids: {len(grid['steps'])} of 60; curves thinned to 2,000 points" in page.summary


def test_many_runs_and_metrics_stay_within_the_size(tmp_path: Path) -> None:
    rows = [{"step": step} | {f"metric_{i}": step * 1.2345678 + i for i in range(80)} for step in range(400)]
    runs = [write_run(tmp_path / str(number), rows) for number in range(6)]
    page = render(read_runs(runs), 1_000_000)
    assert len(page.html.encode()) < 1_000_000
    assert len(Reader(page.html).data["charts"]) == 60
    assert "20 further metrics not shown" in page.summary


def test_a_long_recipe_is_cut_and_keeps_its_differences() -> None:
    tables = [{"many": {f"key_{i}": i for i in range(2000)}, "last": value} for value in (1, 2)]
    rows = compare(tables)
    assert len(rows) == 500
    assert [row.key for row in rows if row.differs] == ["last"]
    assert len(compare([{"text": "x" * 10_000}])[0].values[0] or "") == 200


def test_a_long_log_is_read_in_seconds(tmp_path: Path) -> None:
    row = dict.fromkeys(("loss", "energy_data", "energy_samples", "gradient_norm", "a/b", "a/c"), 0.123456789)
    run = write_run(tmp_path / "run", ({"step": step} | row for step in range(100_000)))
    begin = time.process_time()
    render(read_runs([run]), 20_000_000)
    assert time.process_time() - begin < 15


# --- The file that is written ----------------------------------------------------------------------------------------


def test_only_a_report_is_made_anew(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "out.html"
    assert run_cli("report", run, "--out", out).code == 0
    first = out.read_text(encoding="utf-8")
    write_lines(run / "metrics.jsonl", [{"step": 5, "loss": 1.0}])
    assert run_cli("report", run, "--out", out).code == 0
    assert "step</dt><dd>5 of 6" in out.read_text(encoding="utf-8")
    assert "step</dt><dd>0 of 6" in first
    out.write_text("<!doctype html>\n<p>mine")
    done = run_cli("report", run, "--out", out)
    assert done.code == 2
    assert "is no report of ebmkit" in done.err
    assert out.read_text() == "<!doctype html>\n<p>mine"


def test_what_cannot_be_reported_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    cases = {
        "no run here": (tmp_path / "empty", "--out", tmp_path / "a.html"),
        "there is no folder": (run, "--out", tmp_path / "none" / "a.html"),
        "already exists": (run, "--out", tmp_path / "empty"),
        "--port is for --watch": (run, "--port", 0),
        "--watch serves": (run, "--watch", "--out", tmp_path / "a.html"),
    }
    for words, arguments in cases.items():
        done = run_cli("report", *arguments, cwd=tmp_path)
        assert done.code == 2, words
        assert words in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "run"]
    (run / "recipe.toml").write_text("= 1")
    with pytest.raises(BadInput, match="not valid TOML"):
        read_runs([run])


def test_recipes_side_by_side() -> None:
    one, two = tiny_table("digits"), tiny_table("digits", seed=4)
    two["optimizer"]["learning_rate"] = 0.5
    rows = {row.key: row.values for row in compare([one, two]) if row.differs}
    assert list(rows) == [
        *("seed", "optimizer.learning_rate", "optimizer.learning_rate.use", "optimizer.learning_rate.start"),
        "optimizer.learning_rate.end",
    ]
    assert rows["optimizer.learning_rate"] == [None, "0.5"]
    assert rows["optimizer.learning_rate.use"] == ['"cosine"', None]
