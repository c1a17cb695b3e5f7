"""Options that buffers with slots share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ebmkit import BaseOptions


class SlotOptions(BaseOptions):
    """How many images a buffer holds, and in which type."""

    size: int = Field(default=10_000, ge=1, description="Slots over all ranks.")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32",
        description="Type of the stored images; what is drawn is float32. 16 bits take half of the memory: 'float16' "
        "rounds by 2^-11 of a value, up to 65504, 'bfloat16' by 2^-8, without limit.",
    )
