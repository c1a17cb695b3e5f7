"""The sources of shards: archives, the embedded digits, torchvision's data sets."""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ebmkit.data import all_images, make_shards, open_images
from ebmkit.errors import BadInput
from ebmkit.interfaces import Context
from making_helper import archive_of_noise, contents, image_folder, samples
from shards_helper import encoded, options, picture, tar_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path)


def archive_of(folder: Path, kind: str) -> Path:
    path = folder.parent / f"archive.{kind}"
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, f"top/{file.relative_to(folder)}")
    else:
        with tarfile.open(path, "w:" + kind.partition(".")[2]) as archive:
            for file in files:
                archive.add(file, f"top/{file.relative_to(folder)}")
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_archives_give_what_their_folder_gives(folder: Path, tmp_path: Path, kind: str) -> None:
    expected = make_shards(folder, tmp_path / "folder", image_size=8, workers=0)
    made = make_shards(archive_of(folder, kind), tmp_path / "out", image_size=8, workers=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "folder")
    assert made.classes == expected.classes
    assert [one.name for one in made.skipped] == [f"top/{one.name}" for one in expected.skipped]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_in_archives_are_never_used_as_paths(tmp_path: Path, kind: str) -> None:
    inside, evil = tmp_path / "inside", ["../../evil.png", "/tmp/ebmkit-evil.png", "a/../../evil2.png"]
    inside.mkdir()
    path = inside / f"x.{kind}"
    data = encoded(picture(3))
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in evil:
                archive.writestr(name, data)
    else:
        path.write_bytes(tar_bytes([(name, data) for name in evil]))
    before = set(tmp_path.rglob("*"))
    made = make_shards(path, inside / "out", image_size=8, workers=0)
    assert made.count == 3
    assert {name.partition(".")[0] for name, _ in samples(inside / "out")} == {f"{n:09d}" for n in range(3)}
    new = set(tmp_path.rglob("*")) - before
    assert {file.name for file in new} == {"out", "manifest.json", "train-000000.tar"}
    assert not Path("/tmp/ebmkit-evil.png").exists()


def test_broken_archives(tmp_path: Path) -> None:
    whole = archive_of_noise(tmp_path)
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(BadInput, match="is the file complete"):
        make_shards(cut, tmp_path / "out", image_size=8)
    (tmp_path / "notes").write_text("hello")
    with pytest.raises(BadInput, match="neither a folder nor a zip or tar"):
        make_shards(tmp_path / "notes", tmp_path / "out", image_size=8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no image files"):
        make_shards(tmp_path / "empty", tmp_path / "out", image_size=8)
    assert not (tmp_path / "out").exists()


def test_digits_are_read_back_exactly(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    made = make_shards("digits", tmp_path, image_size=None, channels=1, workers=0)
    assert (made.count, made.image_size, made.classes) == (1797, (8, 8), tuple("0123456789"))
    digits = load_digits()
    expected = np.round(digits.images * 255 / 16).astype(np.uint8)
    known = {pixels.tobytes(): int(label) for pixels, label in zip(expected, digits.target, strict=True)}
    source = open_images(options(f"{tmp_path}/*.tar", channels=1), Context((1, 8, 8), 10), 1797)
    batch = source.next()
    found = [pixels.numpy().tobytes() for pixels in batch.images]
    assert sorted(found) == sorted(pixels.tobytes() for pixels in expected)
    assert [known[pixels] for pixels in found] == batch.labels.tolist()


def cifar10(root: Path) -> np.ndarray:
    """Files in CIFAR-10's own layout, with other content: torchvision checks names only if told the checksums."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        content = {"data": pixels.reshape(6, -1), "labels": [0, 1, 2, 3, 4, 5]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return pixels


def test_a_torchvision_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    pixels = cifar10(tmp_path / "root")
    # The checksums of the real files, which are not here, are the one thing that is replaced.
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)
    made = make_shards("CIFAR10", tmp_path / "out", image_size=32, root=tmp_path / "root", split="test", workers=2)
    assert (made.count, made.classes) == (6, tuple("abcdefghij"))
    assert made.shards[0].name == "test-000000.tar"
    images = all_images(options(f"{tmp_path}/out/*.tar", image_size=32))
    labels = [int(data) for name, data in samples(tmp_path / "out") if name.endswith("cls")]
    assert torch.equal(images, torch.from_numpy(pixels)[labels])


def test_torchvision_sets_that_are_not_there(tmp_path: Path) -> None:
    for name in ("CIFAR10", "CelebA", "MNIST", "STL10", "LSUN:church_outdoor", "ImageNet"):
        with pytest.raises(BadInput, match=name.partition(":")[0]) as caught:
            make_shards(name, tmp_path / "out", image_size=32, root=tmp_path)
        assert str(tmp_path) in str(caught.value) or "package" in str(caught.value)
    with pytest.raises(BadInput, match="`root`"):
        make_shards("CIFAR10", tmp_path / "out", image_size=32)
    with pytest.raises(BadInput, match="LSUN:church_outdoor"):
        make_shards("LSUN", tmp_path / "out", image_size=32, root=tmp_path)
    with pytest.raises(BadInput, match=r"no folder or file .*nowhere"):
        make_shards(tmp_path / "nowhere", tmp_path / "out", image_size=32)
