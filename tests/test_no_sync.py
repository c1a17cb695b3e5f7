"""A training step queues its work, and asks for no result: on a GPU the host would wait for everything before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ebmkit.trainer import Trainer
from run_helpers import new_trainer, tiny_recipe, write_shards

READS = {
    "_local_scalar_dense",
    "nonzero",
    "equal",
    "masked_select",
    "is_nonzero",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
}
"""Operations whose result, or the shape of it, the host has to know."""
CALLS = {"tolist", "numpy", "cpu", "__array__", "cuda", "item", "__bool__", "__float__", "__int__", "__index__"}
"""Methods that bring values to the host. Some read memory directly on a CPU, and are no operation there."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Operations(TorchDispatchMode):
    """Operations that wait for a device, the backward's included, except on tensors that lie on the CPU anyway."""

    def __init__(self, on_the_cpu: set[int]) -> None:
        super().__init__()
        self.on_the_cpu, self.found = on_the_cpu, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        where = args[0].data_ptr() if name in READS and isinstance(args[0], Tensor) else None
        if name in READS and where not in self.on_the_cpu:
            self.found.append(name)
        if name in INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            self.found.append(f"{name} by a mask")
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Calls that wait for a device, or copy to it what has just been made on the host."""

    def __init__(self, on_the_cpu: set[int]) -> None:
        super().__init__()
        self.on_the_cpu, self.found = on_the_cpu, list[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in CALLS and not (isinstance(args[0], Tensor) and args[0].data_ptr() in self.on_the_cpu):
            self.found.append(f".{name}()")
        if name in ("tensor", "as_tensor", "asarray") and kwargs.get("device") is not None:
            self.found.append(f"torch.{name}(..., device=...)")
        return func(*args, **kwargs)


def waits(work: Callable[[], object], on_the_cpu: set[int] = frozenset()) -> list[str]:  # type: ignore[assignment]
    with Operations(on_the_cpu) as operations, Calls(on_the_cpu) as calls:
        work()
    return operations.found + calls.found


def counts(trainer: Trainer) -> set[int]:
    """Counts of steps, which AdamW and the moving average keep on the CPU whatever the device is."""
    steps = [state["step"] for state in trainer.engine.optimizer.state.values()]  # type: ignore[attr-defined]
    return {count.data_ptr() for count in (*steps, trainer.ema.n_averaged)}


RESNET = {"use": "resnet", "channels": 8, "channel_multipliers": [1, 1], "blocks_per_level": 1}
CASES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "mirrored, clipped, in two micro-batches": {"engine": {"accumulate": 2}, "optimizer__clip_grad_norm": 0.1},
    "bf16": {"train__precision": "bf16"},
    "a clipped and clamped sampler": {
        "sampler": {"use": "langevin", "steps": 2, "clip_gradient": 1.0, "clamp": 2.0, "noise": 0.05}
    },
    "wgan_gp per pixel": {"regularizers": [{"use": "wgan_gp", "norm": "pixel"}]},
    "energy_l2 and spectral_norm": {"regularizers": [{"use": "energy_l2"}, {"use": "spectral_norm"}]},
    "persistent": {"buffer": {"use": "persistent", "size": 40}},
    "fresh": {"buffer": {"use": "fresh"}, "time_steps": 1},
    "a buffer of 16 bits": {"buffer": {"use": "cyclic", "size": 40, "dtype": "bfloat16"}},
    "resnet": {"energy": RESNET},
    "streamed": {"data__cache": "off"},
    "streamed by a worker": {"data__cache": "off", "data__workers": 1},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("no-sync"), per_shard=40)


@pytest.mark.parametrize("case", CASES)
def test_a_training_step_waits_for_nothing(case: str, shards: str, tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards, **CASES[case]))
    trainer.train_step()
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    # Within a pass of the data: its order comes from the host, once in each pass.
    assert waits(trainer.train_step, counts(trainer)) == []
    assert any(not torch.equal(value, before[key]) for key, value in trainer.model.state_dict().items())


def test_only_counts_on_the_cpu_are_let_through(shards: str, tmp_path: Path) -> None:
    """Without the exception AdamW's and the average's counts show, and nothing else."""
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards))
    trainer.train_step()
    found = waits(trainer.train_step)
    assert found
    assert set(found) <= {"_local_scalar_dense", ".item()", ".__int__()"}
    parameters = sum(1 for _ in trainer.model.parameters())
    assert found.count("_local_scalar_dense") <= parameters + 1


X = torch.arange(6.0)
WAITING: dict[str, Callable[[], object]] = {
    "float": lambda: float(X.sum()),
    "if": lambda: 1 if X.sum() > 3 else 0,
    "item": lambda: X[2].item(),
    "index by a scalar tensor": lambda: [1, 2, 3][torch.tensor(1)],
    "tolist": lambda: X.tolist(),
    "numpy": lambda: X.numpy(),
    "mask": lambda: X[X > 2],
    "assignment by a mask": lambda: X.clone().__setitem__(X > 2, X[:3]),
    "nonzero": lambda: X.nonzero(),
    "where": lambda: torch.where(X > 1),
    "equal": lambda: torch.equal(X, X),
    "unique": lambda: X.unique(),
    "masked_select": lambda: X.masked_select(X > 2),
    "made on the host": lambda: torch.tensor([1.0], device=X.device),
    "cpu": lambda: X.cpu(),
}


@pytest.mark.parametrize("what", WAITING)
def test_the_check_sees(what: str) -> None:
    assert waits(WAITING[what])


def test_the_check_sees_a_regularizer_that_reads_its_value(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path / "run", tiny_recipe(shards))
    trainer.train_step()
    part = trainer.regularizers[0]
    penalty = part.penalty

    def reads(*args: Any) -> Any:
        term = penalty(*args)
        return term if float(term.value.detach()) >= 0 else None

    monkeypatch.setattr(part, "penalty", reads)
    assert waits(trainer.train_step, counts(trainer)) != []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch tells of synchronisation on one only")
@pytest.mark.parametrize("case", CASES)
def test_torch_sees_no_synchronisation_on_a_gpu(case: str, shards: str, tmp_path: Path) -> None:
    from ebmkit.console import Silent
    from ebmkit.run_folder import RunFolder

    recipe = tiny_recipe(shards, **{**CASES[case], "train__device": "cuda"})
    run = RunFolder(tmp_path / "run")
    run.create(recipe.to_toml())
    trainer = Trainer(recipe, run, "cuda", Silent())
    trainer.train_step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
