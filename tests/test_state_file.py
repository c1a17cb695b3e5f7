"""Nested state in one safetensors file."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ebmkit import BadInput
from ebmkit.state_file import load_state, save_state
from run_helpers import differences

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


def round_trip(folder: Path, state: dict[Any, Any]) -> Any:
    save_state(folder / "state.safetensors", state)
    return load_state(folder / "state.safetensors")


def test_nested_state_comes_back(tmp_path: Path) -> None:
    state = {
        "numbers": {"int": -3, "big": 2**70, "float": 0.1, "inf": math.inf, "true": True, "none": None, "text": "ä\n$"},
        "by number": {0: {"exp_avg": torch.arange(3.0), "step": torch.tensor(7.0)}, 12: {"step": 2}},
        "list": [1, [2.5, torch.ones(2, 2)], {"a": []}],
        "empty": {},
    }
    found = round_trip(tmp_path, state)
    assert not list(differences(found, state))
    assert found["numbers"]["true"] is True
    assert type(found["numbers"]["int"]) is int
    assert list(found["by number"]) == [0, 12]


def test_tuples_come_back_as_lists_and_nan_as_nan(tmp_path: Path) -> None:
    found = round_trip(tmp_path, {"betas": (0.9, 0.999), "loss": math.nan})
    assert found["betas"] == [0.9, 0.999]
    assert math.isnan(found["loss"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape(dtype: torch.dtype, tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = [(), (1,), (0,), (2, 0, 3), (2, 3, 4)]
    state = {str(shape): (torch.rand(shape) * 3).to(dtype) for shape in shapes}
    assert not list(differences(round_trip(tmp_path, state), state))


def test_tensors_that_share_memory_or_are_views(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "b": base, "transposed": base.T, "row": base[1], "parameter": torch.nn.Parameter(base)}
    found = round_trip(tmp_path, state)
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor.detach())
    found["a"].zero_()
    assert float(found["b"].sum()) == 66.0


def test_a_real_optimizer_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    def work(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for i in range(steps):
            optimizer.zero_grad()
            model(torch.full((2, 3), float(i))).square().sum().backward()
            optimizer.step()

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    work(model, optimizer, 3)
    saved = round_trip(tmp_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    again = torch.nn.Linear(3, 2)
    other = torch.optim.AdamW(again.parameters(), lr=0.1)
    again.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    work(model, optimizer, 2)
    work(again, other, 2)
    assert not list(differences(dict(model.state_dict()), dict(again.state_dict())))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
TENSORS = st.builds(
    lambda numbers, dtype: torch.tensor(numbers, dtype=torch.float32).to(dtype),
    st.lists(st.floats(-8, 8, width=32), max_size=4),
    st.sampled_from(DTYPES),
)
KEYS = st.text(max_size=6) | st.sampled_from(["$tensor", "$pairs", "a", "a/b", "b"])
STATES = st.dictionaries(
    KEYS,
    st.recursive(
        PLAIN | TENSORS,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(KEYS, inner, max_size=3)
            | st.dictionaries(st.integers(-5, 5) | st.sampled_from(["1", "-1"]), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STATES)
def test_any_state_comes_back(tmp_path: Path, state: dict[str, Any]) -> None:
    assert not list(differences(round_trip(tmp_path, state), state))


@pytest.mark.parametrize(
    "state",
    [
        {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}},
        {"a": {1: torch.zeros(1), "1": torch.ones(1)}},
        {"$tensor": "x"},
        {"$pairs": [[1, 2]]},
        {"a": {"$tensor": "/b"}, "b": torch.ones(1)},
    ],
    ids=["slash", "1 and '1'", "tensor", "pairs", "reference"],
)
def test_keys_that_could_be_confused_are_kept_apart(state: dict[str, Any], tmp_path: Path) -> None:
    assert not list(differences(round_trip(tmp_path, state), state))


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j, lambda: 0])
def test_what_cannot_be_stored_is_refused_by_its_place(value: object, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="/deep/0"):
        save_state(tmp_path / "state.safetensors", {"deep": [value]})
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, {"step": 1, "x": torch.ones(3)})
    old = path.read_bytes()
    with pytest.raises(TypeError):
        save_state(path, {"step": 2, "x": torch.zeros(3), "bad": object()})
    with pytest.raises(BaseException, match=r".") as caught:
        # A sparse tensor passes our own checks and fails within the library.
        save_state(path, {"step": 2, "x": torch.eye(3).to_sparse()})
    assert not isinstance(caught.value, BadInput)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "no temporary file is left"


def test_what_was_loaded_does_not_need_the_file_any_more(tmp_path: Path) -> None:
    """A view of a file that is then cut short ends the process (SIGBUS) when it is read."""
    path = tmp_path / "state.safetensors"
    save_state(path, {"x": torch.ones(300_000)})
    found = load_state(path)
    path.write_bytes(b"")
    assert float(found["x"].sum()) == 300_000


def test_metadata_is_added(tmp_path: Path) -> None:
    from safetensors import safe_open

    save_state(tmp_path / "s.safetensors", {"a": 1}, {"ebmkit": "0"})
    with safe_open(tmp_path / "s.safetensors", framework="pt") as file:
        assert file.metadata()["ebmkit"] == "0"


def good(path: Path) -> bytes:
    save_state(path, {"step": 5, "x": torch.arange(40.0), "y": {3: torch.ones(5)}})
    return path.read_bytes()


def test_files_of_any_shorter_length_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    data = good(path)
    for length in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(BadInput, match=r"state\.safetensors"):
            load_state(path)


def test_damaged_files_never_end_in_another_error(tmp_path: Path) -> None:
    """Any changed byte of the header: a clear error, or (where it is a number or text) another value."""
    path = tmp_path / "state.safetensors"
    data = good(path)
    header = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for place in range(0, header, 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
        try:
            load_state(path)
        except BadInput:
            refused += 1
    assert refused > header // 6


@pytest.mark.parametrize(
    "tree",
    [
        *("[]", "3", "{", "[" * 100_000, '{"x": {"$tensor": "none"}}', '{"x": {"$tensor": []}}'),
        *('{"x": {"$pairs": 3}}', '{"x": {"$pairs": [[1]]}}', '{"x": {"$pairs": [[[], 1]]}}'),
    ],
    ids=range(9),
)
def test_damaged_trees_are_refused(tree: str, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_file({"a": torch.ones(1)}, path, {"state": tree})
    with pytest.raises(BadInput, match=r"not .*ebmkit state file"):
        load_state(path)


def test_other_files_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    for name, data in {
        "pickle": pickle.dumps(Bomb()),
        "text": b"hello",
        "empty": b"",
        "huge header": (2**60).to_bytes(8, "little") + b"{}",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput):
            load_state(tmp_path / name)
    torch.save({"a": Bomb()}, tmp_path / "torch")
    save_file({"a": torch.ones(1)}, tmp_path / "plain")
    for name in ("torch", "plain", "missing", "."):
        with pytest.raises(BadInput):
            load_state(tmp_path / name)
    assert not (tmp_path / "exploded").exists()
