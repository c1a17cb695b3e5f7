"""The recipe's own sections, those that are not plugins: `[data]`, `[optimizer]` and `[train]`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ebmkit.data.schemes import unopened
from ebmkit.interfaces import BaseOptions
from ebmkit.schedule_option import ScheduleOption

Side = Annotated[int, Field(ge=1, le=16_384)]
Pattern = Annotated[str, Field(min_length=1)]


class DataOptions(BaseOptions):
    """Where the real images come from and what is done to them."""

    shards: Annotated[tuple[Pattern, ...], Field(min_length=1)] | Pattern = Field(
        description="WebDataset shards, one pattern or several: braces 'train-{000000..000009}.tar', globs, http(s) "
        "URLs, 'pipe:COMMAND', .tar or .tar.gz; relative to the folder in which ebmkit runs. 'digits' is the embedded "
        "data set."
    )
    image_size: Side | tuple[Side, Side] = Field(
        description="Height and width in pixels: one number for square images, or [height, width]."
    )
    channels: Literal[1, 3] = Field(
        default=3, description="1 for grey, 3 for RGB; images of the other kind are converted."
    )
    wrong_size: Literal["resize", "refuse"] = Field(
        default="refuse",
        description="What to do with images of another size: resize them (antialiased), or stop with an error.",
    )
    horizontal_flip: bool = Field(default=False, description="Mirror every image with probability 1/2 each time.")
    cache: Literal["off", "device"] = Field(
        default="device",
        description="'device' decodes the whole set once and holds it as uint8 on the training device, if it fits "
        "cache_limit; 'off' streams from the shards.",
    )
    cache_limit: float = Field(
        default=2.0, gt=0, description="Budget of the cache in GiB; a larger set is streamed, with a warning."
    )
    workers: int = Field(
        default=2, ge=0, le=256, description="Processes that read and decode shards; 0 reads in the training process."
    )
    shuffle: int = Field(
        default=10_000,
        ge=1,
        description="Images over which a worker shuffles at a time while streaming (in memory, encoded).",
    )
    retries: int = Field(
        default=5,
        ge=0,
        le=100,
        description="How often in a row a failing remote shard (URL or command) is tried again before training ends.",
    )
    retry_delay: float = Field(
        default=1.0, ge=0, le=3600, description="Seconds before the first retry; twice as many before each further one."
    )
    timeout: float = Field(
        default=60.0, gt=0, le=86_400, description="Seconds without a byte of a remote shard that count as a failure."
    )
    cache_dir: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="A folder in which remote shards are kept as they are, for the next pass and the next run; many "
        "processes and runs may share it. It is independent of 'cache', which is about decoded images.",
    )
    cache_dir_limit: float = Field(
        default=50.0,
        gt=0,
        le=1e9,
        description="Size of cache_dir in GiB; the shards that were used longest ago make room. One that does not fit "
        "is streamed, with a warning.",
    )
    make: str | None = Field(
        default=None, description="The command that makes these shards, shown when they are missing."
    )

    @field_validator("shards")
    @classmethod
    def _can_be_opened(cls, shards: tuple[str, ...] | str) -> tuple[str, ...] | str:
        for pattern in (shards,) if isinstance(shards, str) else shards:
            if reason := unopened(pattern):
                raise ValueError(reason)
        return shards

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of the images."""
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.channels, height, width

    @property
    def patterns(self) -> tuple[str, ...]:
        """The shard patterns, always as a tuple."""
        return (self.shards,) if isinstance(self.shards, str) else self.shards


class OptimizerOptions(BaseOptions):
    """AdamW (Loshchilov & Hutter 2017), as in section 5 of the paper."""

    learning_rate: ScheduleOption = Field(
        default=2e-4, validate_default=True, description="A number or a schedule over the progress of training."
    )
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=(0.9, 0.999), description="Decay rates of the moment estimates."
    )
    eps: float = Field(default=1e-8, gt=0, description="Added to the denominator.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")
    clip_grad_norm: float | None = Field(
        default=None, gt=0, description="Clip the norm of the parameter gradient to this; off by default."
    )


class EngineOptions(BaseOptions):
    """Who computes the update: plain torch for one process, DeepSpeed for several."""

    use: Literal["auto", "plain", "deepspeed"] = Field(
        default="auto",
        description="'auto' takes plain torch for one process and DeepSpeed for several; 'deepspeed' takes it always.",
    )
    zero_stage: int = Field(
        default=0,
        ge=0,
        le=3,
        description="ZeRO stage: 0 keeps all of it on every rank, 1 splits the optimizer's state, 2 the gradients too; "
        "3 is refused, because input gradients and double backward need whole parameters.",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Micro-batches in a step, one after the other on each rank: for batches that memory does not hold.",
    )
    offload_optimizer: bool = Field(
        default=False, description="Keep the optimizer's state in host memory; with stages 1 and 2."
    )
    deepspeed: dict[str, Any] = Field(
        default={}, description="More of DeepSpeed's own configuration, passed on as it is."
    )

    @field_validator("deepspeed")
    @classmethod
    def _json(cls, table: dict[str, Any]) -> dict[str, Any]:
        """DeepSpeed takes what JSON has."""
        try:
            json.dumps(table, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"must hold what JSON has, tables, lists, text, finite numbers: {error}") from error
        return table


Part = Literal["auto", "on", "off"]


class FastOptions(BaseOptions):
    """The parts of the fast path, one by one; 'auto' leaves each to `train.fast`."""

    tf32: Part = Field(
        default="auto", description="GPU: TF32 in what is computed in float32, penalties above all; 'off' is IEEE."
    )
    channels_last: Part = Field(
        default="auto", description="Keep weights and features with the channels innermost; for the plain engine."
    )
    winograd: Part = Field(
        default="auto",
        description="CPU, float32: 3x3 convolutions by Winograd's F(4x4, 3x3), a quarter of the multiplications; needs "
        "a C compiler.",
    )
    concatenate: Part = Field(
        default="auto", description="Evaluate positives and negatives in one batch, not one after the other."
    )
    compile: Part = Field(
        default="auto", description="torch.compile the network's energies and gradients; a minute or two at the start."
    )
    cuda_graphs: Part = Field(
        default="auto", description="GPU: replay the compiled gradient of the chains as a CUDA graph; with 'compile'."
    )
    fused_optimizer: Part = Field(default="auto", description="torch's fused AdamW; for the plain engine.")


class TrainOptions(BaseOptions):
    """How long to train, on what, and what to write into the run folder."""

    steps: int = Field(ge=1, description="Parameter updates.")
    batch_size: int = Field(ge=1, description="Real images per step, over all ranks; the chains are as many.")
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="Decay of the moving average of the weights.")
    checkpoint_every: int = Field(default=1000, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(default=2, ge=1, description="Newest checkpoints to keep; older ones are deleted.")
    sample_every: int = Field(default=1000, ge=0, description="Steps between sample grids; 0 draws none.")
    sample_count: int = Field(default=64, ge=1, description="Images in a sample grid.")
    log_every: int = Field(default=10, ge=1, description="Steps between lines of metrics.jsonl.")
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto",
        description="'bf16' computes chains and the objective under autocast; weights, the moving average and the "
        "penalties stay in float32. 'auto' takes it on GPUs that have it, where 'fast' is not 'off'.",
    )
    fast: Literal["auto", "off", "max"] = Field(
        default="auto",
        description="The fast path: 'auto' takes what this device and the length of the run deserve, 'max' all that "
        "the device can, 'off' plain eager float32. 'precision' and [fast] set its parts by hand.",
    )
    hook_errors: Literal["disable", "fatal"] = Field(
        default="disable",
        description="What follows when a plugin's hook raises an error: 'disable' reports it and calls that plugin no "
        "more in this process, 'fatal' ends training after a checkpoint.",
    )
    save_errors: Literal["stop", "continue"] = Field(
        default="stop",
        description="What follows when a checkpoint or another file of the run cannot be written, because the disk is "
        "full for example: 'stop' ends training, 'continue' trains on and tries again at the next one. The checkpoint "
        "before stays; that of the last step has to be written.",
    )
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="CPU threads of torch; by default as many as torch chooses."
    )
    device: str = Field(default="auto", description="'auto' (a GPU if there is one), 'cpu', 'cuda', 'cuda:1' or 'mps'.")
