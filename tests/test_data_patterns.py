"""Shard patterns: braces, globs, URLs, missing files, and the embedded set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from ebmkit.data.manifest import read_manifest
from ebmkit.data.patterns import expand
from ebmkit.errors import BadData
from shards_helper import options, write_shards


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    return write_shards(tmp_path, [1] * 12)


def test_braces_keep_their_order_and_their_zeros(shards: list[str], tmp_path: Path) -> None:
    assert expand(f"{tmp_path}/train-{{000009..000011}}.tar") == shards[9:12]
    assert expand(f"{tmp_path}/train-0000{{11,03}}.tar") == [shards[11], shards[3]]


def test_globs_are_sorted_and_overlaps_are_read_once(shards: list[str], tmp_path: Path) -> None:
    assert expand(f"{tmp_path}/train-*.tar") == shards
    assert expand([shards[5], f"{tmp_path}/*.tar"]) == [shards[5], *shards[:5], *shards[6:]]


def test_urls_and_commands_pass_with_braces_but_without_globs() -> None:
    assert expand("https://example.org/a-{0..1}.tar") == ["https://example.org/a-0.tar", "https://example.org/a-1.tar"]
    assert expand("pipe:cat /nowhere/*-{00..01}.tar | zcat") == [
        "pipe:cat /nowhere/*-00.tar | zcat",
        "pipe:cat /nowhere/*-01.tar | zcat",
    ]


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        ("s3://bucket/a-{000000..000009}.tar", '"pipe:aws s3 cp s3://bucket/a-{000000..000009}.tar -"'),
        ("S3://bucket/a.tar", '"pipe:aws s3 cp S3://bucket/a.tar -"'),
        ("gs://bucket/dir/a-{0..9}.tar.gz", '"pipe:gcloud storage cat gs://bucket/dir/a-{0..9}.tar.gz"'),
        ("hdfs://host/a.tar", '"pipe:hdfs dfs -cat hdfs://host/a.tar"'),
        ("file:///data/a.tar", "write the path alone"),
        ("az://box/a.tar", "pipe:COMMAND"),
        ("odd:name.tar", "./odd:name.tar"),
    ],
)
def test_what_ebmkit_does_not_open_comes_with_the_command_to_write(pattern: str, advice: str) -> None:
    with pytest.raises(BadData) as caught:
        expand(["digits", pattern])
    assert caught.value.exit_code == 2
    assert advice in str(caught.value)
    with pytest.raises(ValidationError) as refused:
        options([pattern])
    assert advice in str(refused.value)


def test_a_local_file_may_have_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd:name.tar").write_bytes(b"")
    assert expand("./odd:name.tar") == expand("*name.tar") == ["./odd:name.tar"]


def test_relative_to_the_working_folder(shards: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [Path(name).resolve() for name in expand("train-00000[01].tar")] == [Path(name) for name in shards[:2]]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("train-{000011..000012}.tar", "train-000012.tar"),
        ("nothing-*.tar", "no file matches"),
        ("train-{00.tar", "no file train-{00.tar"),
        ("", "is a folder; name its shards"),
    ],
)
def test_what_is_missing_is_named(shards: list[str], tmp_path: Path, pattern: str, expected: str) -> None:
    with pytest.raises(BadData) as caught:
        expand(f"{tmp_path}/{pattern}", make="ebmkit make-shards X Y")
    assert expected.split()[-1] in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert ("make-shards X Y" in str(caught.value)) == (pattern != "" and "{00." not in pattern)


def test_patterns_are_expanded_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from ebmkit.data.patterns import expand; expand('digits'); expand('pipe:true'); "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "EBMKIT_CACHE": str(tmp_path)})


def test_two_processes_make_the_digits_at_once(tmp_path: Path) -> None:
    program = "from ebmkit.data.patterns import expand; print(*expand('digits'))"
    environment = {**os.environ, "EBMKIT_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1]
    assert len(list(tmp_path.iterdir())) == 1, "no temporary folder is left"
    manifest = read_manifest(Path(answers[0][0]).parent)
    assert manifest is not None
    assert manifest.count == 1797
    assert [str(Path(answers[0][0]).parent / shard.name) for shard in manifest.shards] == answers[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_cache_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("EBMKIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BadData, match="set EBMKIT_CACHE"):
        expand("digits")


def test_a_cache_folder_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("EBMKIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BadData, match="set EBMKIT_CACHE"):
        expand("digits")
