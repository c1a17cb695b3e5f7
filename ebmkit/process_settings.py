"""Settings and random states that belong to the whole process: read, compared, and given back."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch


class Setting(NamedTuple):
    """One setting: what it is called in messages, how it is read and how it is set."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_device(device: torch.device) -> None:
    # Without a default device tensors are made on the CPU; naming it would only make every call slower.
    torch.set_default_device(None if device.type == "cpu" else device)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _set_folder(folder: str | None) -> None:
    if folder is not None:
        with suppress(OSError):
            os.chdir(folder)


def _autocast() -> tuple[Any, ...]:
    # Looking at a device's autocast does not start the device.
    found = [(torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in ("cpu", "cuda")]
    return (*found, torch.is_autocast_cache_enabled())


def _set_autocast(values: tuple[Any, ...]) -> None:
    *devices, cached = values
    for device, (enabled, dtype) in zip(("cpu", "cuda"), devices, strict=True):
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
    torch.set_autocast_cache_enabled(cached)


def _cudnn() -> tuple[bool, bool, bool]:
    return torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic


def _set_cudnn(values: tuple[bool, bool, bool]) -> None:
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = values


SETTINGS = (
    Setting("the gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("the default type", torch.get_default_dtype, torch.set_default_dtype),
    Setting("the default device", torch.get_default_device, _set_device),
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting(
        "deterministic algorithms",
        _deterministic,
        lambda values: torch.use_deterministic_algorithms(values[0], warn_only=values[1]),
    ),
    Setting("cuDNN's flags", _cudnn, _set_cudnn),
    Setting("the precision of matrix products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Setting("autocast", _autocast, _set_autocast),
    Setting(
        "anomaly detection",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda values: torch.autograd.set_detect_anomaly(*values),
    ),
    Setting("the working directory", _folder, _set_folder),
)
"""Everything that is given back after the code of a plugin."""

RANDOM = (
    Setting("torch's", torch.get_rng_state, torch.set_rng_state),
    Setting("Python's", random.getstate, random.setstate),
    Setting("numpy's", np.random.get_state, np.random.set_state),
)
"""The global random states; a GPU's is not among them, since reading it would wait for the device."""


@dataclass(frozen=True)
class ProcessSettings:
    """The settings and random states of the process at one moment."""

    settings: tuple[Any, ...]
    random: tuple[Any, ...]

    @classmethod
    def capture(cls) -> ProcessSettings:
        """Those of this moment."""
        return cls(tuple(item.read() for item in SETTINGS), tuple(item.read() for item in RANDOM))

    def changed(self) -> list[str]:
        """The names of the settings that are different now."""
        return [item.name for item, value in zip(SETTINGS, self.settings, strict=True) if item.read() != value]

    def drawn(self) -> list[str]:
        """Whose global random states are different now: `torch's`, `Python's`, `numpy's`."""
        return [item.name for item, value in zip(RANDOM, self.random, strict=True) if not _same(item.read(), value)]

    def restore(self) -> None:
        """Give everything back; what is as it was is not touched."""
        for item, value in zip(SETTINGS, self.settings, strict=True):
            if item.read() != value:
                item.write(value)
        for item, value in zip(RANDOM, self.random, strict=True):
            item.write(value)


@contextmanager
def kept() -> Iterator[ProcessSettings]:
    """Give back, at the end and whatever is raised, all that was changed of the process."""
    before = ProcessSettings.capture()
    try:
        yield before
    finally:
        before.restore()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor | np.ndarray):
        return bool((a == b).all())
    if isinstance(a, tuple):
        return len(a) == len(b) and all(_same(i, j) for i, j in zip(a, b, strict=True))
    return bool(a == b)
