"""What a component must not touch: random states and settings that belong to the whole process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ebmkit.process_settings import ProcessSettings, kept


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every global random state, and give back the states that were there."""
    with kept():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        yield


@contextmanager
def unchanged_globals(who: str, may_draw: str = "") -> Iterator[None]:
    """Raise `ContractBroken` if `who` changes a global random state or setting; they are given back in any case.

    `may_draw` names the random state that it may draw from, such as `torch's`.
    """
    from ebmkit.testing.contract import ContractBroken

    with seeded(1234):
        before = ProcessSettings.capture()
        yield
        drawn = [name for name in before.drawn() if name != may_draw]
        changed = before.changed()
    if drawn:
        raise ContractBroken(
            f"{who} draws from {' and '.join(drawn)} global random state, so that runs cannot be repeated or resumed: "
            "draw from the generator or noise source that is given, or from ebmkit.noise.generator(device, seed, NAME)"
        )
    if changed:
        raise ContractBroken(f"{who} changes {' and '.join(changed)} of the process: give back what it sets")
