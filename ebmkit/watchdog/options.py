"""The recipe's section `[watchdog]`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ebmkit.interfaces import BaseOptions


class WatchdogOptions(BaseOptions):
    """What counts as divergence, and what follows."""

    mode: Literal["recover", "stop", "off"] = Field(
        default="recover",
        description="'recover' skips updates, restarts chains and rolls back; 'stop' skips and restarts, but ends "
        "training at the first alarm; 'off' ends it only where the loss or its gradient is not finite.",
    )
    gradient_factor: float = Field(
        default=100.0,
        gt=1,
        description="An update is skipped if its gradient norm is so many times the usual one, the running geometric "
        "mean: healthy runs stay below 20.",
    )
    max_skips: int = Field(
        default=10, ge=1, description="So many skipped updates in a row are an alarm: a single bad batch is not."
    )
    chain_limit: float = Field(
        default=10.0,
        gt=1,
        description="A chain with a pixel beyond this starts again: data is within 1, and N(0, I) within 6.",
    )
    max_update: float = Field(
        default=0.05,
        gt=0,
        description="An alarm if the learning rate is more than this times the root mean square of the weights: AdamW "
        "moves each weight by about the learning rate, and one update would undo the others. Usual are 0.001 to 0.02.",
    )
    gap_limit: float = Field(
        default=20.0,
        gt=0,
        description="An alarm if the mean energies of data and chains differ by so many times sqrt(C * H * W): with "
        "input gradients of norm 1 they differ by their distance, about 1 to 2 times that.",
    )
    energy_limit: float = Field(
        default=100.0, gt=0, description="The same for the energy of any one image, from the mean energy of data."
    )
    min_spread: float = Field(
        default=0.1,
        ge=0,
        description="An alarm if late chains differ from each other by less than this, as a standard deviation in "
        "units of that of the data: healthy chains have 1 to 2.",
    )
    max_spread: float = Field(
        default=10.0, gt=0, description="An alarm if they differ by more: noise alone has 2 to 4."
    )
    max_duplicates: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="An alarm if more late chains than this share have a copy among the others, beyond the share in "
        "the data.",
    )
    max_saturation: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="An alarm if more pixels of late chains than this share are at the limits of the data's range or "
        "beyond, beyond the share in the data.",
    )
    patience: int = Field(
        default=3,
        ge=1,
        description="Looks in a row, one each train.log_every steps, at which energies or chains must be wrong: one "
        "batch says little.",
    )
    max_rollbacks: int = Field(
        default=10, ge=0, description="Rollbacks in a run, over all its processes; after these, the next alarm ends it."
    )
    learning_rate_factor: float = Field(
        default=0.5, gt=0, le=1, description="Each rollback multiplies the learning rate by this."
    )
    penalty: dict[str, Any] = Field(
        default={"use": "wgan_lp", "weight": 10.0},
        description="The regularizer that the first rollback adds where no regularizer of the recipe bounds input "
        "gradients and energies or chains run away: a smaller learning rate would only make it later. {} adds none.",
    )
