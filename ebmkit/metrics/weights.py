"""The weights of torch-fidelity's networks: found on this machine, or fetched, or told how to be had."""

from __future__ import annotations

import hashlib
import pickle
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ebmkit.errors import BadInput
from ebmkit.metrics.names import INCEPTION, VGG16

PATIENCE = 10.0
"""Seconds without an answer after which there is no network."""


class Published(NamedTuple):
    """A file of weights: where it is published, and how its SHA-256 begins."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


FILES = {
    INCEPTION: Published(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d",
    ),
    VGG16: Published("https://download.pytorch.org/models/vgg16-397923af.pth", "397923af"),
}
"""The weights by which the metrics of the literature are defined."""


def find(networks: Sequence[str], given: Iterable[Path] = ()) -> dict[str, Path]:
    """Each network's file: of those that are `given`, in torch's cache, or fetched into it.

    Raises `BadInput` for a given file that is none of theirs, and where files cannot be fetched, with all of those.
    """
    found: dict[str, Path] = {}
    for path in given:
        network = _network_of(path)
        if network is None or network not in networks:
            told = " or ".join(f"{FILES[name].name} ({FILES[name].url})" for name in networks) or "none"
            raise BadInput(f"{path}: not the weights that these metrics are defined by; they take {told}")
        found[network] = path
    kept = {name: _kept(FILES[name]) for name in networks if name not in found}
    _fetch({FILES[name]: path for name, path in kept.items() if not path.is_file()})
    for name, path in kept.items():
        if _network_of(path) != name:
            raise BadInput(f"{path}: not the weights that it is named after; delete it, so that it is fetched again")
    return found | kept


def _kept(published: Published) -> Path:
    """Where torch, torchvision and torch-fidelity keep it, too."""
    return Path(torch.hub.get_dir()) / "checkpoints" / published.name


def _network_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    found = next((name for name, file in FILES.items() if digest.startswith(file.sha256)), None)
    if found is not None:
        try:
            # torch-fidelity reads it without this guard.
            torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise BadInput(f"{path}: not a file of weights alone") from error
    return found


def _fetch(missing: Mapping[Published, Path]) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        for published, target in missing.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(published.url, str(target), published.sha256, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        left = [(published, target) for published, target in missing.items() if not target.is_file()]
        told = "".join(f"\n  {published.url}\n    to {target}" for published, target in left)
        raise BadInput(
            f"weights that these metrics are defined by are not here and cannot be fetched "
            f"({getattr(error, 'reason', error)}); where there is a network, fetch{told}\n"
            "or put them anywhere and name each with --weights FILE"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
