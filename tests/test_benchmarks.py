"""The scripts in benchmarks/: they start, they are listed, and what they compute from their timings is right."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from run_helpers import ROOT, environment, run_process

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> object:
    """A module of the folder, by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_every_script_is_listed() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
    assert listed == {path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".sh")}


def test_exponent_is_that_of_a_power_law(benchmark: object) -> None:
    pytest.importorskip("matplotlib")
    growth: ModuleType = benchmark("growth")  # type: ignore[operator]
    for a in (0.0, 1.0, 2.0):
        assert growth.exponent([(n, 3 * n**a) for n in (2, 8, 32)]) == pytest.approx(a)


def test_operators_are_sorted_and_summed_by_kind(benchmark: object) -> None:
    operators: ModuleType = benchmark("operators")  # type: ignore[operator]
    names = {
        "_WeightGradient": "convolutions",
        "aten::mkldnn_convolution": "convolutions",
        "aten::native_group_norm_backward": "normalisation",
        "aten::linalg_vector_norm": operators.REST,
        "aten::silu_backward": "activations",
        "aten::mm": "linear layers",
        "aten::mul": operators.REST,
    }
    assert {name: operators.kind_of(name) for name in names} == names
    x = torch.randn(64, 64)
    (found,) = operators.measured([lambda: (x @ x, torch.nn.functional.silu(x))], 3)
    assert {kind for kind, seconds in found.items() if seconds > 0} >= {"linear layers", "activations"}
    assert found["convolutions"] == 0


def test_growth_takes_the_fixed_part_away(benchmark: object) -> None:
    """Work that costs 1 + n^2 made-up seconds."""
    pytest.importorskip("matplotlib")
    growth: ModuleType = benchmark("growth")  # type: ignore[operator]
    series: ModuleType = benchmark("growth_series")  # type: ignore[operator]
    clock = [0.0]

    class Timed:
        def __init__(self, size: int) -> None:
            self.size = size

        def __enter__(self) -> object:
            def work() -> None:
                clock[0] += 1 + self.size**2

            return work

        def __exit__(self, *error: object) -> None:
            return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growth.time, "process_time", lambda: clock[0])
        found = growth.measure(series.Series("work", "n", (1, 100, 1000, 10_000), Timed, 1, 1), 2)
    assert found.seconds == (2.0, 10_001.0, 1_000_001.0, 100_000_001.0)
    assert found.exponent == pytest.approx(2, abs=0.01)
    assert not found.fits
    assert "grows faster" in next(growth.rows([found]))


def test_shards_of_the_growth_benchmark_are_real(benchmark: object) -> None:
    series: ModuleType = benchmark("growth_series")  # type: ignore[operator]
    told: list[str] = []
    with series.many_shards(30) as options:
        assert len(series.expand(options.patterns)) == 30
        with series.open_images(options, series.Context(options.shape, 1), 16, warn=told.append) as source:
            for _ in range(35):
                assert source.next().images.float().std() > 10
    assert not told


def test_the_measured_part_of_a_page_is_replaced(benchmark: object, tmp_path: Path) -> None:
    pages: ModuleType = benchmark("pages")  # type: ignore[operator]
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{pages.BEGIN}\nold\n{pages.END}\n\nBy hand.\n")
    for text in ("first", "second"):
        pages.write_measured(page, text)
    assert page.read_text() == f"# By hand\n\n{pages.BEGIN}\n\nsecond\n\n{pages.END}\n\nBy hand.\n"
    page.write_text("# By hand\n")
    with pytest.raises(SystemExit, match="its marks"):
        pages.write_measured(page, "third")
    assert page.read_text() == "# By hand\n"


def test_parts_are_compared_with_everything_off(benchmark: object) -> None:
    parts: ModuleType = benchmark("parts")  # type: ignore[operator]
    off, auto = [4.0, 6.0, 5.0], [2.0, 2.0, 4.0]
    text = parts.table_of({"off": off, "auto": auto}, {"off": auto, "auto": off})
    assert "| off | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |" in text
    assert "| auto | 2.50 | 1.25 | 3.00 | 0.40 | 0.33 | 0.80 |" in text
    kinds = parts.variants("cpu", False)
    assert kinds["off"] == {"train.fast": "off"}
    assert kinds["winograd alone"] == {"train.fast": "off", "fast.winograd": "on"}
    assert kinds["auto without winograd"] == {"fast.winograd": "off"}
    assert not [name for name in kinds if "tf32" in name or "compile" in name]


def test_targets_of_a_gpu(benchmark: object) -> None:
    """Each side of each bound; images of 64x64 are scaled to 50,000."""
    page: ModuleType = benchmark("gpu_page")  # type: ignore[operator]

    def ratio(value: float) -> dict[str, object]:
        return {"ratio": {"value": value, "lowest": value - 1, "highest": value + 1}}

    strict = {"reference without TF32": ratio(7.9)["ratio"]}
    found = {
        "compiled": {"training": ratio(6.0) | {"compiling": 91.0}, "sampling": ratio(7.9)},
        "strict": {"ratios": {"training": strict}},
        "draw32": {"seconds": 45.0, "count": 50_000, "starting": 80.0},
        "draw64": {"seconds": 18.1, "count": 5000, "starting": 95.0},
        "data": {"data": {"streamed": {"waiting": 0.021}}},
    }
    rows = {name: (value, met) for name, value, _, met in page.targets_of(found)}
    assert {name: met for name, (_, met) in rows.items()} == {
        "training, compiled, to the reference": "met",
        "sampling, compiled, to the reference": "missed",
        "training, compiled, to the reference without TF32": "met",
        "compiling to train": "missed",
        "50,000 images of 32x32": "met",
        "starting to draw 32x32, compiling": "met",
        "50,000 images of 64x64": "missed",
        "starting to draw 64x64, compiling": "missed",
        "of a step, waiting for shards": "missed",
    }
    assert rows["50,000 images of 64x64"][0] == "181 s, scaled from 5,000"
    assert page.targets_of({}) == []


def gpu_script(out: Path, python: str) -> subprocess.CompletedProcess[str]:
    words = ["bash", str(FOLDER / "gpu.sh"), "--tiny", str(out)]
    settings = environment(PYTHON=python)
    return subprocess.run(words, env=settings, capture_output=True, text=True, check=False, timeout=280)


def test_a_part_that_fails_on_a_gpu_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "draw32.json").write_text("{}")
    done = gpu_script(tmp_path, "false")
    parts = re.findall(r"^part (\w+)", (FOLDER / "gpu.sh").read_text(), re.MULTILINE)
    assert re.findall(r"^FAILED  (\w+)", done.stdout, re.MULTILINE) == parts
    assert len(parts) == 10
    assert not list((tmp_path / "gpu").glob("*.json")), "what an earlier call measured would pass for this one's"


@pytest.mark.slow
def test_all_that_is_measured_on_a_gpu_runs_tiny_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = gpu_script(tmp_path, sys.executable)
    assert "FAILED" not in done.stdout, done.stdout
    text = (tmp_path / "gpu.md").read_text()
    for row in (
        "training, compiled",
        "without TF32",
        "50,000 images of 64x64",
        "waiting for shards",
        "| batch |",
        "| off |",
    ):
        assert row in text


def test_peers_are_skipped_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(
        f"import runpy, sys\nsys.modules['torchebm'] = None\nsys.path.insert(0, {str(FOLDER)!r})\n"
        f"sys.argv = ['peers.py']\nrunpy.run_path({str(FOLDER / 'peers.py')!r}, run_name='__main__')\n"
    )
    done = run_process("run.py", cwd=tmp_path, module=False)
    assert done.code == 0, done.err
    assert done.out == "skipped: torchebm is not installed (pip install -e '.[peers]')\n"


@pytest.mark.skipif(importlib.util.find_spec("torchebm") is None, reason="torchebm is not installed")
def test_peers_do_the_same_work(tmp_path: Path) -> None:
    words = ["digits", "--channels", 8, "--batch", 2, "--steps", 2, "--rounds", 2, "--json", "peers.json"]
    done = run_process(FOLDER / "peers.py", *words, cwd=tmp_path, module=False)
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "peers.json").read_text())
    assert told["difference"] < 1e-5
    for row in told["rows"]:
        ratios = [b / a for a, b in zip(row["ebmkit"], row["torchebm"], strict=True)]
        assert row["ratios"] == pytest.approx(ratios)
        assert len(ratios) == 2
    assert "drawing" in done.out
    assert "training step" in done.out
