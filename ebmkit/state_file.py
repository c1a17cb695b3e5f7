"""Nested state (tensors, numbers, text, lists, dictionaries) in one safetensors file; no pickle.

Tensors are stored as such; everything else is JSON in the file's metadata, with a reference in each tensor's place.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ebmkit.errors import BadInput
from ebmkit.files import write_atomically

_TENSOR = "$tensor"
_PAIRS = "$pairs"
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def save_state(path: Path, state: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write `state` to `path`, atomically; raises `TypeError` for values that are neither tensors nor plain."""
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, "", tensors)
    header = {"state": json.dumps(tree, allow_nan=True), **(metadata or {})}
    write_tensors(path, tensors, header)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, atomically; raises `OSError` where the disk is full or cannot be written."""

    def write(temporary: Path) -> None:
        try:
            save_file(dict(tensors), temporary, dict(metadata or {}) or None)
        except SafetensorError as error:
            # It tells the system's errors in its text only.
            number = _OS_ERROR.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error

    write_atomically(path, write)


def load_state(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save_state` wrote, tensors on `device`; raises `BadInput` for any other or damaged file."""
    try:
        with safe_open(path, framework="pt", device=device) as file:
            tree = json.loads((file.metadata() or {})["state"])
            # Copies: what safetensors gives is a view of the file, which may be gone before it is first touched.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - not a dictionary
        state = _unpack(tree, tensors)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError, RecursionError) as error:
        raise BadInput(f"{path}: not a complete ebmkit state file ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict):
        raise BadInput(f"{path}: not an ebmkit state file")
    return state


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # A copy on the CPU: safetensors refuses tensors that share memory.
        name = path
        while name in tensors:
            # Paths are for people; {"a/b": ...} and {"a": {"b": ...}} have the same one.
            name += "'"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _pack(item, f"{path}/{key}", tensors) for key, item in value.items()}
        # JSON has text keys only, and an optimizer's state is keyed by number; "$" marks our own references.
        pairs = [[key, _pack(item, f"{path}/{key}", tensors)] for key, item in value.items()]
        return {_PAIRS: pairs}
    if isinstance(value, list | tuple):
        return [_pack(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"state {path or '/'}: cannot store a {type(value).__name__}; use tensors, numbers, text, lists, dicts"
    )


def _unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if tree.keys() == {_TENSOR}:
            return tensors[tree[_TENSOR]]
        if tree.keys() == {_PAIRS}:
            return {key: _unpack(item, tensors) for key, item in tree[_PAIRS]}
        return {key: _unpack(item, tensors) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_unpack(item, tensors) for item in tree]
    return tree
