"""What a component must not touch: random states and settings that belong to the whole process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every global random state, and give back the states that were there."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


@contextmanager
def unchanged_globals(who: str) -> Iterator[None]:
    """Raise `ContractBroken` if `who` changes a global random state or a setting of torch; they are given back."""
    from ebmkit.testing.contract import ContractBroken

    settings = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    with seeded(1234):
        before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
        yield
        after = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    now = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    torch.set_grad_enabled(settings[0])
    torch.set_default_dtype(settings[1])
    faults = [
        name
        for name, same in zip(
            ("torch's", "Python's", "numpy's"),
            (torch.equal(before[0], after[0]), before[1] == after[1], before[2] == after[2]),
            strict=True,
        )
        if not same
    ]
    if faults:
        raise ContractBroken(
            f"{who} draws from {' and '.join(faults)} global random state, so that runs cannot be repeated or resumed: "
            "draw from the generator or noise source that is given, or from ebmkit.noise.generator(device, seed, NAME)"
        )
    if settings != now:
        raise ContractBroken(f"{who} changes torch's gradient mode, default type or threads: restore what it sets")
