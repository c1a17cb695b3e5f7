"""Files that somebody made to hurt: nothing in them runs, memory and time are bounded, and errors are for people.

The campaigns themselves are in benchmarks/reliability; here they run in short.
"""

from __future__ import annotations

import ast
import gzip
import importlib
import json
import lzma
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ebmkit import BadInput
from ebmkit.data.tally import Tally
from ebmkit.data.tar_shard import read_shard
from ebmkit.errors import EbmkitError
from ebmkit.printable import one_line, printable
from run_helpers import ROOT, run_cli

FOLDER = ROOT / "benchmarks" / "reliability"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of benchmarks/reliability, by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def told(text: str) -> None:
    sys.stdout.write(text + "\n")


def test_a_sample_of_the_campaign_of_hostile_files(module: Any, tmp_path: Path) -> None:
    found = module("hostile").campaign(15, tmp_path, told)
    assert found["failures"] == []
    assert found["cases"] == 15


def test_a_command_in_a_model_file_never_runs_whichever_command_reads_it(module: Any, tmp_path: Path) -> None:
    hostile: ModuleType = module("hostile")
    good, shard, recipe = hostile.harmless(tmp_path)
    chosen = [
        case
        for case in hostile.cases(good, str(shard), recipe, large=False)
        if case.hostile.name == "shards by a command" and case.words[0] not in ("report", "push", "export")
    ]
    assert len(chosen) == len(hostile.MODEL_COMMANDS) - 3
    # A command on the command line is the user's own: it runs, and the audit hook tells.
    words = ("evaluate", str(good), "--count", "4", "--data", f"pipe:touch exploded && cat {shard}")
    case = hostile.Case("model", hostile.Hostile("own", lambda path: path.write_bytes(good.read_bytes()), True), words)
    found = hostile.run_cases([*chosen, case], tmp_path, told)
    assert found["exit_codes"] == {"0": 6, "2": 7}, "drawing needs no data, and all else asks for --data"
    assert all("model 'own'" in failure for failure in found["failures"])
    assert any("subprocess.Popen" in failure for failure in found["failures"])
    assert any("was run" in failure for failure in found["failures"])


def test_a_sample_of_the_fuzzing(module: Any, tmp_path: Path) -> None:
    found = module("fuzz").campaign(1000, tmp_path, told)
    assert found["failures"] == []
    assert found["inputs"] == 1000
    assert found["used"] > 100
    assert found["refused"] > 300


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_no_source_unpickles_or_evaluates() -> None:
    forbidden = {"eval", "exec", "os.system", "os.popen", "yaml.load", "torch.hub.load"}
    found = []
    for path in [*(ROOT / "ebmkit").rglob("*.py"), *(ROOT / "plugins").rglob("ebmkit_*/**/*.py")]:
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
            place = f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
            if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill", "joblib") or name in forbidden:
                found.append(place)
            if name == "torch.load" and keywords.get("weights_only") != "True":
                found.append(place)
            if name.endswith("np.load") and keywords.get("allow_pickle", "False") != "False":
                found.append(place)
            if keywords.get("shell") == "True" and path.name != "command.py":
                found.append(place)
    assert found == []


def test_printable_leaves_nothing_for_a_terminal_to_act_upon() -> None:
    assert printable("\x1b[2Jé\n\t\u202ex\ud800\x9b") == "\\x1b[2Jé\n\t\\u202ex\\ud800\\x9b"
    assert one_line("a\nb" * 100, 20) == "a\\nba\\nba\\nba\\nba..."
    assert str(EbmkitError("\x1b]0;owned\x07")) == "\\x1b]0;owned\\x07"


def raws(path: Path) -> tuple[list[Any], list[str]]:
    tally = Tally()
    return list(read_shard(str(path), tally)), tally.told


def test_sizes_that_a_header_declares_are_not_believed(module: Any, tmp_path: Path) -> None:
    shards: ModuleType = module("hostile_shards")
    path = tmp_path / "x.tar"
    path.write_bytes(shards.around(shards.member("evil.png", b"", size=2**60)))
    found, texts = raws(path)
    # Of a damaged shard the last sample is left out.
    assert [raw.key for raw in found] == ["00000", "00001", "00002", "00003"][: len(found)]
    assert len(texts) == 1
    assert "unexpected end of data" in texts[0]


def test_a_file_that_is_too_large_is_skipped_and_the_shard_goes_on(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebmkit.data.tar_shard.MAX_SAMPLE", 1000)
    shards: ModuleType = module("hostile_shards")
    path = tmp_path / "x.tar"
    path.write_bytes(shards.around(shards.member("evil.png", bytes(5000)) + shards.member("evil.cls", b"3")))
    found, texts = raws(path)
    assert [raw.image is None for raw in found] == [False] * 4 + [True] + [False] * 4
    assert found[4].trouble == "is larger than any image file should be"
    assert texts == []


def test_only_images_and_labels_are_read(module: Any, tmp_path: Path) -> None:
    shards: ModuleType = module("hostile_shards")
    path = tmp_path / "x.tar"
    many = b"".join(shards.member(f"s.{n}.png", b"x") for n in range(500))
    path.write_bytes(shards.around(shards.member("t.pickle", b"x" * 900) + many))
    found, texts = raws(path)
    assert [raw.key for raw in found[4:6]] == ["t", "s"]
    assert found[4].trouble == "has no image"
    assert texts == []


def test_xz_is_read_with_a_limit_of_memory(module: Any, tmp_path: Path) -> None:
    shards: ModuleType = module("hostile_shards")
    whole, path = shards.around(b""), tmp_path / "x.tar"
    path.write_bytes(lzma.compress(whole[:5000]) + bytes(8) + lzma.compress(whole[5000:]))
    assert len(raws(path)[0]) == 8
    greedy = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**30, "preset": 0}]
    path.write_bytes(lzma.compress(whole, filters=greedy))
    found, texts = raws(path)
    assert found == []
    assert "Memory usage limit" in texts[0]


def test_an_archive_that_unpacks_to_far_more_is_refused(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebmkit.data.making.archive.UNPACKED_LEAST", 10**6)
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(module("hostile_shards").around(bytes(10**8)), 1))
    result = run_cli("make-shards", path, tmp_path / "out", "--size", "8")
    assert result.code == 2
    assert str(path) in result.err
    assert "100 times as large" in result.err
    assert not (tmp_path / "out").exists()


def test_a_file_name_that_is_no_text_is_in_the_manifest(module: Any, tmp_path: Path) -> None:
    shards: ModuleType = module("hostile_shards")
    path = tmp_path / "x.tar"
    path.write_bytes(shards.around(shards.member(b"\xff\xfe.png", b"broken")))
    result = run_cli("make-shards", path, tmp_path / "out", "--size", "8", "--workers", "1")
    assert result.code == 0, result.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["count"] == 8
    assert manifest["skipped"][0]["name"] == "\udcff\udcfe.png"


def test_a_model_may_be_of_another_precision(module: Any, tmp_path: Path) -> None:
    import torch

    from ebmkit.model_file import read_model_file

    models: ModuleType = module("hostile_models")
    good = tmp_path / "good.safetensors"
    models.write_model(good, "x.tar")
    (half,) = [item for item in models.hostile_models(good) if item.name == "weights of half precision"]
    half.make(tmp_path / "half.safetensors")
    one, other = (read_model_file(tmp_path / f"{name}.safetensors").energy.state_dict() for name in ("good", "half"))
    assert all(value.dtype == one[key].dtype for key, value in other.items())
    assert all(torch.allclose(value, one[key], atol=1e-3) for key, value in other.items())


def test_images_that_no_machine_holds_are_refused_before_they_are_drawn(module: Any, tmp_path: Path) -> None:
    import ebmkit

    models: ModuleType = module("hostile_models")
    good = tmp_path / "good.safetensors"
    models.write_model(good, "x.tar")
    (large,) = [item for item in models.hostile_models(good) if item.name == "images of 16,384 pixels"]
    large.make(tmp_path / "large.safetensors")
    with pytest.raises(BadInput, match=r"large\.safetensors: 64 images of 16384x16384 at a time need more than"):
        ebmkit.load(tmp_path / "large.safetensors", "cpu").sample(64)


def test_a_run_folder_whose_recipe_declares_another_network_is_refused(module: Any, tmp_path: Path) -> None:
    import tomli_w

    from ebmkit.state_file import save_state

    models: ModuleType = module("hostile_models")
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "step-000000001"
    checkpoint.mkdir(parents=True)
    table = models.table_of("x.tar")
    table["energy"] |= {"channels": 4096, "channel_multipliers": [64, 64]}
    (run / "recipe.toml").write_text(tomli_w.dumps(table))
    for state, message in [
        ({"ema": {}, "images_seen": 1}, "a far larger network"),
        ({"ema": 3}, "no weights of a run"),
    ]:
        save_state(checkpoint / "state.safetensors", {"step": 1, **state})
        result = run_cli("export", run, "--out", tmp_path / "out.safetensors")
        assert result.code == 2
        assert str(run) in result.err
        assert message in result.err


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"evil": 1}', "\ud800"])
def test_records_of_a_sweep_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    from ebmkit.sweeps.folder import SweepFolder

    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(BadInput, match=r"x\.json"):
        SweepFolder(tmp_path).read("x")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": "ebmkit-shards-1"}', '{"format": "ebmkit-shards-1", "image_size": [1]}']
)
def test_a_manifest_that_is_none_is_passed_over(text: str, module: Any, tmp_path: Path) -> None:
    from ebmkit.data.manifest import known_counts

    (tmp_path / "manifest.json").write_text(text)
    assert known_counts([str(tmp_path / "x.tar")]) == {}


def test_braces_are_counted_before_they_are_expanded() -> None:
    from ebmkit.data.patterns import braces
    from ebmkit.errors import BadData

    assert braces("{a,b}-{0..2}") == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]
    assert len(braces("{{a..c},x{00..10..5}}")) == 6
    for pattern in ("{0..999999999999}", "{0..999}" * 8, "{a,{0..9999}}" * 3):
        with pytest.raises(BadData, match="more than 1,000,000 shards"):
            braces(pattern)
    with pytest.raises(BadData, match="unbalanced"):
        braces("{" * 2000 + "a,b" + "}" * 2000)


def test_a_map_of_holes_in_the_data_is_not_read(tmp_path: Path) -> None:
    """tarfile would read it before anybody can look at the member: a packed kilobyte would be gigabytes."""
    import io
    import tarfile

    from ebmkit.data.members import files_of, open_tar

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x.png")
        holes = b"100000\n" + b"0\n" * 200_000
        info.size = len(holes)
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}
        tar.addfile(info, io.BytesIO(holes))
    data.seek(0)
    with pytest.raises(tarfile.ReadError, match="holes"), open_tar(data, "r:") as tar:
        list(files_of(tar))
