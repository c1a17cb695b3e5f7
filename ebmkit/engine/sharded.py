"""The engine of several processes: DeepSpeed, ZeRO stages 0 to 2. Imported only where it is used."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ebmkit.distributed.world import lost_peers
from ebmkit.energy_model import EnergyModel
from ebmkit.engine.interface import Engine, Judge
from ebmkit.engine.optimizer import (
    MOMENTS,
    SkippingAdamW,
    adamw_settings,
    clip,
    load_moments,
    set_learning_rate,
    trainable,
)
from ebmkit.engine.settings import deepspeed_config
from ebmkit.options import EngineOptions, OptimizerOptions


class DeepSpeedEngine(Engine):
    """AdamW under DeepSpeed: gradients are averaged over the ranks; from stage 1 on each holds a part of the moments.

    The state goes in and out in the shape of torch's AdamW, whole, so that a checkpoint does not depend on the engine,
    on the stage, or on the number of ranks.
    """

    def __init__(
        self, module: EnergyModel, optimizer: OptimizerOptions, options: EngineOptions, micro_batch: int, device: str
    ) -> None:
        deepspeed = _deepspeed(device)
        self.module = module
        self.options = optimizer
        self.sharded = options.zero_stage > 0
        self.accumulate, self.done = options.accumulate, 0
        self.parameters = trainable(module)
        # ZeRO takes torch's own class only.
        kind = torch.optim.AdamW if self.sharded else SkippingAdamW
        self.torch_optimizer = kind(self.parameters, **adamw_settings(optimizer))
        with lost_peers():
            self.engine, *_ = deepspeed.initialize(
                model=module,
                model_parameters=self.parameters,
                optimizer=self.torch_optimizer,
                config=deepspeed_config(options, optimizer, micro_batch),
                dist_init_required=False,
            )
        if self.sharded:
            # In float32 it would not look: an update that is not finite is skipped, as on one process.
            self.engine.optimizer.check_grad_overflow = True

    def backward(self, loss: Tensor) -> None:
        """DeepSpeed's backward, which divides by the number of micro-batches and averages over the ranks."""
        with lost_peers():
            self.engine.backward(loss)
            self.done += 1
            if self.done < self.accumulate:
                # It counts micro-batches by its calls of `step`, and updates at the last one only.
                self.engine.step()

    def step(self, learning_rate: float, judge: Judge | None = None) -> Tensor:
        """Clip and update. With ZeRO DeepSpeed decides itself: it skips updates that are not finite, and no others."""
        set_learning_rate(self.torch_optimizer, learning_rate)
        self.done = 0
        with lost_peers():
            # Without ZeRO the gradients are whole and lie at the parameters, as in the plain engine.
            norm = None
            if not self.sharded:
                norm = clip(self.parameters, self.options.clip_grad_norm)
                assert isinstance(self.torch_optimizer, SkippingAdamW)
                self.torch_optimizer.good = None if judge is None else judge(norm)
            self.engine.step()
            if norm is None:
                found = self.engine.get_global_grad_norm()
                norm = torch.as_tensor(float("nan") if found is None else found, device=self.parameters[0].device)
                if judge is not None:
                    judge(norm, finite_only=True)
            self._share_buffers()
        return norm.detach()

    def _share_buffers(self) -> None:
        """Rank 0's values of what the network keeps beside its parameters, such as running means of its images."""
        if dist.get_world_size() == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for buffer in self.module.buffers():
            kinds.setdefault(buffer.dtype, []).append(buffer.detach())
        for kept in kinds.values():
            flat = torch.cat([buffer.reshape(-1) for buffer in kept])
            dist.broadcast(flat, src=0)
            for buffer, values in zip(kept, torch.split(flat, [item.numel() for item in kept]), strict=True):
                buffer.copy_(values.view_as(buffer))

    def state_dict(self) -> dict[str, Any]:
        """The moments of whole parameters, gathered from all ranks; whole on rank 0 only."""
        if not self.sharded:
            return self.torch_optimizer.state_dict()
        group = {key: value for key, value in self.torch_optimizer.param_groups[0].items() if key != "params"}
        told: dict[str, Any] = {"state": {}, "param_groups": [{**group, "params": list(range(len(self.parameters)))}]}
        kept = self.torch_optimizer.state
        if not kept:
            # Before the first step, on every rank alike.
            return told
        step = next(iter(kept.values()))["step"].detach().float().cpu()
        parts = dict(self._parts())
        for number, parameter in enumerate(self.parameters):
            moments = {}
            for name in MOMENTS:
                whole = torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
                if number in parts:
                    flat, here, there = parts[number]
                    whole.narrow(0, here.start, here.numel).copy_(kept[flat][name].narrow(0, there.start, there.numel))
                with lost_peers():
                    dist.reduce(whole, dst=0)
                moments[name] = whole.reshape(parameter.shape).cpu()
            told["state"][number] = {"step": step.clone(), **moments}
        return told

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the moments: all of them, or the part of this rank."""
        if not self.sharded:
            load_moments(self.torch_optimizer, state)
            return
        # DeepSpeed updates copies of the weights, and writes them back over those that were loaded.
        self.engine.optimizer.refresh_fp32_params()
        found = state["state"]
        if not found:
            self.torch_optimizer.state.clear()
            return
        unknown = sorted(set(found) - set(range(len(self.parameters))))
        if unknown:
            raise ValueError(f"the optimizer has {len(self.parameters)} parameters, its state has number {unknown[0]}")
        # torch keeps nothing for a parameter that never had a gradient: its moments are 0.
        for number, parameter in enumerate(self.parameters):
            if number in found and any(found[number][name].shape != parameter.shape for name in MOMENTS):
                raise ValueError(f"parameter {number} has shape {tuple(parameter.shape)}, and its state another one")
        kept = self.torch_optimizer.state
        for flat in self.engine.optimizer.single_partition_of_fp32_groups:
            # The count of steps stays on the host, where AdamW keeps it.
            step = max(item["step"].detach().float().cpu() for item in found.values()).clone()
            kept[flat] = {"step": step, **{name: torch.zeros_like(flat) for name in MOMENTS}}
        for number, (flat, here, there) in self._parts():
            for name in MOMENTS if number in found else ():
                values = found[number][name].flatten().narrow(0, here.start, here.numel)
                kept[flat][name].narrow(0, there.start, there.numel).copy_(values)

    def _parts(self) -> Iterator[tuple[int, tuple[Tensor, Any, Any]]]:
        """(parameter's number, (this rank's flat tensor, the place in the parameter, the place in the flat tensor)).

        Of the parameters of which this rank keeps a part; a place has a `start` and a length `numel`.
        """
        for flat in self.engine.optimizer.single_partition_of_fp32_groups:
            for number, parameter in enumerate(self.parameters):
                mapping = parameter._hp_mapping  # type: ignore[attr-defined] # DeepSpeed's own bookkeeping
                if mapping is not None and _lies_in(mapping.hp_fragment, flat):
                    yield number, (flat, mapping.lp_fragment_address, mapping.hp_fragment_address)


def _lies_in(part: Tensor, whole: Tensor) -> bool:
    return part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def _deepspeed(device: str) -> Any:
    """The library, quiet, on this kind of device, in the process group that is there."""
    # Read when it is imported: it would take a GPU that this job does not use.
    os.environ["DS_ACCELERATOR"] = "cpu" if device == "cpu" else "cuda"
    # It moves the network to the GPU of this number.
    os.environ["LOCAL_RANK"] = str(torch.device(device).index or 0)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Newer versions of torch rename what it calls; nobody who trains can change that.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    import deepspeed
    import deepspeed.comm
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # A kernel for inference on CPUs, which it would compile for a minute at its first start.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        # One process that was asked to use DeepSpeed: a group of itself.
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    if not deepspeed.comm.is_initialized():
        deepspeed.comm.init_distributed(
            dist_backend="gloo" if device == "cpu" else "nccl", auto_mpi_discovery=False, verbose=False
        )
    return deepspeed
