"""The weights of torch-fidelity's networks: found on this machine, or fetched, or told how to be had."""

from __future__ import annotations

import hashlib
import pickle
import socket
from collections.abc import Iterable
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


def find(network: str, given: Iterable[Path] = ()) -> Path:
    """The network's file: of those that are `given`, in torch's cache, or fetched into it.

    Raises `BadInput` where a given file is none of `FILES`, and where the network's cannot be fetched.
    """
    published = FILES[network]
    for path in given:
        if _network_of(path) == network:
            return path
    kept = Path(torch.hub.get_dir()) / "checkpoints" / published.name
    if not kept.is_file():
        _fetch(published, kept)
    if _network_of(kept) != network:
        raise BadInput(f"{kept}: not the weights that it is named after; delete it, so that it is fetched again")
    return kept


def check(given: Iterable[Path], networks: Iterable[str]) -> None:
    """Raise `BadInput` for a file that none of the `networks` takes."""
    wanted = [name for name in FILES if name in set(networks)]
    for path in given:
        if _network_of(path) not in wanted:
            told = " or ".join(f"{FILES[name].name} ({FILES[name].url})" for name in wanted) or "none"
            raise BadInput(f"{path}: not the weights that these metrics are defined by; they take {told}")


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


def _fetch(published: Published, target: Path) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.url, str(target), published.sha256, progress=True)
    except (OSError, RuntimeError) as error:
        raise BadInput(
            f"the weights {published.name} are not here and cannot be fetched ({getattr(error, 'reason', error)}); "
            f"where there is a network, fetch\n  {published.url}\nand put it at\n  {target}\n"
            "or name the file with --weights"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
