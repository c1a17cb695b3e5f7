"""Making shards: contents, reproducible bytes, framing, interruption, refusals."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ebmkit.data import make_shards
from ebmkit.data.manifest import read_manifest
from ebmkit.errors import BadInput
from making_helper import archive_of_noise, contents, image, image_folder, samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path)


def test_a_folder_becomes_shards_and_a_manifest(folder: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", []
    made = make_shards(
        folder,
        out,
        image_size=(8, 16),
        shard_size=40,
        workers=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json", "train-000000.tar", "train-000001.tar", "train-000002.tar"
    ]  # fmt: skip
    assert read_manifest(out) == made
    assert (made.count, made.image_size, made.channels, made.classes) == (90, (8, 16), 3, ("cat", "dog"))
    assert [shard.count for shard in made.shards] == [40, 40, 10]
    for shard in made.shards:
        data = (out / shard.name).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
    assert sorted(one.name for one in made.skipped) == ["cat/broken.png", "dog/text.jpg"]
    assert "known format" in next(one.reason for one in made.skipped if "text" in one.name)
    assert made.options["seed"] == 0
    assert calls[-1] == (90, 92)
    assert json.loads((out / "manifest.json").read_text())["ebmkit"]
    members = samples(out)
    assert [name for name, _ in members[:4]] == ["000000000.png", "000000000.cls", "000000001.png", "000000001.cls"]
    numbers = {}
    for (_, pixels), (_, label) in zip(members[::2], members[1::2], strict=True):
        array = image(pixels)
        assert array.shape == (8, 16, 3)
        numbers[round(float(array[..., 0].mean()))] = int(label)
    assert numbers == {number: int(number % 3 == 0) for number in range(90)}, "every third is a dog"


def test_the_bytes_depend_on_the_seed_and_not_on_the_workers(folder: Path, tmp_path: Path) -> None:
    made = {}
    for name, workers, seed in (("a", 1, 0), ("b", 3, 0), ("c", 3, 1)):
        make_shards(folder, tmp_path / name, image_size=8, shard_size=33, workers=workers, seed=seed)
        made[name] = contents(tmp_path / name)
    assert made["a"] == made["b"]
    assert made["a"] != made["c"]
    with tarfile.open(tmp_path / "a" / "train-000000.tar") as tar:
        assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in tar} == {
            (0, 0, 0, "", 0o644)
        }


def test_cropping_and_resizing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    # A red frame around a green square of 140 pixels, with a blue line around its edge, as in CelebA's usual crop.
    array = np.zeros((218, 178, 3), np.uint8)
    array[..., 0] = 255
    array[39:179, 19:159] = (0, 255, 0)
    Image.fromarray(array).save(source / "x.png")
    make_shards(source, tmp_path / "crop", image_size=64, crop=140, workers=0)
    assert (image(samples(tmp_path / "crop")[0][1]) == (0, 255, 0)).all()
    make_shards(source, tmp_path / "square", image_size=178, workers=0)
    assert (image(samples(tmp_path / "square")[0][1]) == array[20:198]).all()
    make_shards(source, tmp_path / "as-is", image_size=None, workers=0)
    assert (image(samples(tmp_path / "as-is")[0][1]) == array).all()
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(source / "x.png")
    make_shards(source, tmp_path / "small", image_size=16, workers=0)
    inner = image(samples(tmp_path / "small")[0][1])[:, 2:-2].astype(int)
    assert abs(inner - 127).max() < 12, "antialiased"


@pytest.mark.parametrize(("kind", "magic"), [("png", b"\x89PNG"), ("jpg", b"\xff\xd8"), ("webp", b"RIFF")])
def test_formats_and_quality(tmp_path: Path, kind: str, magic: bytes) -> None:
    source, sizes = archive_of_noise(tmp_path), []
    for quality in (30, 95):
        out = tmp_path / f"{kind}{quality}"
        make_shards(source, out, image_size=32, format=kind, quality=quality, channels=1, workers=0)  # type: ignore[arg-type]
        name, data = samples(out)[0]
        assert name == f"000000000.{kind}"
        assert data.startswith(magic)
        assert (kind == "webp") or Image.open(io.BytesIO(data)).mode == "L"
        sizes.append(len(data))
    assert sizes[0] == sizes[1] if kind == "png" else sizes[0] < sizes[1]


def test_metadata_is_applied_and_not_copied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    exif[0x010E] = "private"
    array = np.zeros((8, 8, 3), np.uint8)
    array[:, 4:] = 255
    (tmp_path / "source").mkdir()
    Image.fromarray(array).save(tmp_path / "source" / "x.png", exif=exif, icc_profile=b"profile")
    make_shards(tmp_path / "source", tmp_path / "out", image_size=8, workers=0)
    data = samples(tmp_path / "out")[0][1]
    assert (image(data)[4:] == 255).all(), "the right half is at the bottom after turning"
    assert (image(data)[:4] == 0).all()
    assert b"private" not in data
    assert b"iCCP" not in data


def test_limit(folder: Path, tmp_path: Path) -> None:
    made = make_shards(folder, tmp_path / "few", image_size=8, limit=7, shard_size=3, workers=0)
    assert (made.count, [shard.count for shard in made.shards]) == (7, [3, 3, 1])
    make_shards(folder, tmp_path / "all", image_size=8, workers=0)
    assert samples(tmp_path / "few") == samples(tmp_path / "all")[:14]


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_shards(folder, out, image_size=8, workers=0, limit=5)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(BadInput, match=r"already has a manifest\.json"):
        make_shards(folder, out, image_size=16, workers=0)
    (out / "manifest.json").unlink()
    with pytest.raises(BadInput, match=r"already has shards \(train-000000\.tar\)"):
        make_shards(folder, out, image_size=16, workers=0, prefix="other")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        name: data for name, data in before.items() if name != "manifest.json"
    }
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write shards"):
        make_shards(folder, tmp_path / "file" / "out", image_size=8)


def test_only_unreadable_images(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.png").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"none of the 1 images .* a\.png"):
        make_shards(tmp_path / "source", tmp_path / "out", image_size=8)
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_options_are_told_at_once(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        make_shards(
            folder, tmp_path / "out", image_size=0, crop=0, channels=2, format="tiff", quality=0,  # type: ignore[arg-type]
            shard_size=0, limit=0, workers=-1, prefix="../x",
        )  # fmt: skip
    for word in ("image_size", "crop", "channels", "format", "quality", "shard_size", "limit", "workers", "prefix"):
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path, workers: int) -> None:
    source, out = archive_of_noise(tmp_path, 150, 256), tmp_path / "out"
    program = (
        "import sys; from ebmkit.data import make_shards; "
        "make_shards(sys.argv[1], sys.argv[2], image_size=256, shard_size=10, workers=int(sys.argv[3]))"
    )
    paths = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(source), str(out), str(workers)],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)},
    )
    until = time.monotonic() + 60
    while len(list(out.glob(".train-*.tar.partial")) if out.exists() else []) < 4:
        assert process.poll() is None, "it must not be done before it is killed"
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = [path.name for path in out.iterdir()]
    assert left
    assert all(name.startswith(".") and name.endswith(".partial") for name in left)
    made = make_shards(source, out, image_size=16, limit=12, shard_size=10, workers=0)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", *(shard.name for shard in made.shards)]


def test_an_error_on_the_way_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_shards(folder, tmp_path / "out", image_size=8, shard_size=5, workers=2, progress=stop)
    assert list((tmp_path / "out").iterdir()) == []
