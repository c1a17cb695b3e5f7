"""Loading from and pushing to a hub: a server on this machine that speaks the calls of huggingface_hub."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ebmkit
from ebmkit.errors import BadInput
from ebmkit.sharing import CARD, FILES, MODEL
from ebmkit.sharing.hub import HubPlace, find_place, push
from hub_server import TOKEN, Hub, commit_of, serving_hub
from run_helpers import Command, Result, new_trainer, run_cli, tiny_recipe, write_shards

pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    run = new_trainer(folder / "run", tiny_recipe(write_shards(folder / "shards"), train__steps=2)).train().folder
    ebmkit.export(run, folder / "out")
    return folder / "out"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving_hub() as found:
        yield found


def ask(hub: Hub | str, home: Path, *words: object, token: str = TOKEN, **extra: str) -> Result:
    """The command line in a process of its own: huggingface_hub reads its settings when it is imported."""
    settings = {
        "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url,
        "HF_HOME": str(home),
        # Its own protocol for large files, of which the server knows nothing.
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token,
    }
    done = Command(*words, cwd=home, env=settings | extra).wait()
    assert TOKEN not in done.out + done.err
    assert "Traceback" not in done.err, done.err
    return done


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hf://me/digits", HubPlace("me/digits", None)),
        ("hf:me/digits", HubPlace("me/digits", None)),
        # What pathlib makes of it.
        ("hf:/me/digits", HubPlace("me/digits", None)),
        ("hf://me/di-gi.ts@v1.0", HubPlace("me/di-gi.ts", "v1.0")),
        ("hf://me/digits@refs/pr/1", HubPlace("me/digits", "refs/pr/1")),
        ("runs/hf:x/model.safetensors", None),
        ("model.safetensors", None),
    ],
)
def test_places(text: str, place: HubPlace | None) -> None:
    assert find_place(text) == place
    assert place is None or find_place(str(Path(text))) == place


@pytest.mark.parametrize("text", ["hf:", "hf://", "hf://digits", "hf://a/b/c", "hf://a/b@", "hf://a b/c", "hf://a/b\n"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(BadInput, match="write hf://owner/name"):
        find_place(text)


def test_push_then_load(hub: Hub, exported: Path, tmp_path: Path) -> None:
    """All four files arrive, and of them only the model is fetched again."""
    (exported / "private-notes.txt").write_text("not to be pushed")
    done = ask(hub, tmp_path, "push", exported, "me/digits")
    (exported / "private-notes.txt").unlink()
    assert done.code == 0, done.err
    files = hub.repos["me/digits"]["main"]
    assert files == {name: (exported / name).read_bytes() for name in FILES}
    assert hub.private == {"me/digits"}
    assert hub.messages == ["ebmkit model, step 2"]
    assert done.out.strip() == f"{hub.url}/me/digits/commit/{commit_of(files)}"
    hub.requests.clear()
    loaded = ask(hub, tmp_path, "sample", "hf://me/digits", "--count", 2, "--out", "x.safetensors", "--device", "cpu")
    assert loaded.code == 0, loaded.err
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "x.safetensors")["images"], ebmkit.load(exported, "cpu").sample(2))
    assert {request.path for request in hub.asked("resolve")} == {f"/me/digits/resolve/main/{MODEL}"}
    assert len(hub.asked("^GET .*resolve")) == 1
    assert not hub.asked(f"{CARD}|recipe.toml|tree|revision")


def test_what_was_fetched_once_loads_without_the_hub(hub: Hub, exported: Path, tmp_path: Path) -> None:
    hub.repos["me/digits"] = {"main": {MODEL: (exported / MODEL).read_bytes()}}
    assert ask(hub, tmp_path, "sample", "hf://me/digits", "--count", 1, "--out", "a.png").code == 0
    for settings in ({"HF_HUB_OFFLINE": "1"}, {}):
        place = "http://127.0.0.1:9"
        name = f"b{len(settings)}.png"
        done = ask(place, tmp_path, "sample", "hf://me/digits", "--count", 1, "--out", name, token="", **settings)
        assert done.code == 0, done.err
        assert (tmp_path / name).is_file()


def test_a_revision_is_pinned(hub: Hub, exported: Path, tmp_path: Path) -> None:
    files = {MODEL: (exported / MODEL).read_bytes()}
    commit = commit_of(files)
    hub.repos["me/digits"] = {"main": {MODEL: b"newer, and broken"}, "v1": files, commit: files}
    for revision in ("v1", commit):
        done = ask(hub, tmp_path, "sample", f"hf://me/digits@{revision}", "--count", 1, "--out", f"{revision}.png")
        assert done.code == 0, done.err
    newest = ask(hub, tmp_path, "sample", "hf://me/digits", "--count", 1, "--out", "x.png")
    assert newest.code == 2
    assert "not a complete safetensors file" in newest.err
    none = ask(hub, tmp_path, "sample", "hf://me/digits@v9", "--count", 1, "--out", "x.png")
    assert none.code == 2
    assert "hf://me/digits@v9: has no such revision" in none.err


def test_a_branch_and_a_public_repository(hub: Hub, exported: Path, tmp_path: Path) -> None:
    words = ("push", exported, "me/digits", "--public", "--revision", "trial", "--message", "A trial")
    assert ask(hub, tmp_path, *words).code == 0
    assert hub.private == set()
    assert hub.repos["me/digits"]["main"] == {}
    assert set(hub.repos["me/digits"]["trial"]) == set(FILES)
    assert hub.messages == ["A trial"]
    assert ask(hub, tmp_path, *words).code == 0, "pushing again is no error"


def test_what_is_not_there(hub: Hub, exported: Path, tmp_path: Path) -> None:
    hub.repos["me/empty"] = {"main": {"pytorch_model.bin": b"a pickle"}}
    hub.repos["me/private"] = {"main": {MODEL: (exported / MODEL).read_bytes()}}
    hub.private.add("me/private")
    for place, reason, token in (
        ("hf://me/empty", f"has no {MODEL}", TOKEN),
        ("hf://me/none", "no such repository, or it is private", TOKEN),
        ("hf://me/private", "no such repository, or it is private", ""),
    ):
        done = ask(hub, tmp_path, "sample", place, "--count", 1, "--out", "x.png", token=token)
        assert done.code == 2, done.err
        assert reason in done.err
    assert ask(hub, tmp_path, "sample", "hf://me/private", "--count", 1, "--out", "y.png").code == 0
    assert not hub.asked("pytorch_model.bin")


def test_the_token_is_not_shown(hub: Hub, exported: Path, tmp_path: Path) -> None:
    """`ask` looks for it in all output; here the hub itself repeats it."""
    for status, code in ((401, 2), (403, 2), (400, 1)):
        hub.refuse = status
        done = ask(hub, tmp_path, "push", exported, "me/digits")
        assert done.code == code, done.err
        assert "hf://me/digits" in done.err
    assert f"Bearer {TOKEN}" in {request.token for request in hub.requests}


def test_a_hub_that_cannot_be_reached(exported: Path, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    load = ask(nowhere, tmp_path, "sample", "hf://me/digits", "--count", 1, "--out", "x.png")
    assert load.code == 1
    assert "cannot be reached" in load.err
    pushed = ask(nowhere, tmp_path, "push", exported, "me/digits")
    assert pushed.code == 1
    assert "cannot be reached" in pushed.err


def test_only_whole_folders_are_pushed(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    os.link(exported / MODEL, tmp_path / "half" / MODEL)
    with pytest.raises(BadInput, match=r"has no recipe\.toml, README\.md, samples\.png"):
        push(tmp_path / "half", "me/digits")
    for repo in ("digits", "hf://me/digits@v1"):
        assert run_cli("push", exported, repo).code == 2


def test_without_the_library(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: ebmkit.load("hf://me/digits"), lambda: push(exported, "me/digits")):
        with pytest.raises(BadInput, match=r"pip install 'ebmkit\[hub\]'"):
            call()
