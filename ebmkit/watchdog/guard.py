"""Judges updates and chains on the device, without waiting for it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ebmkit import calls
from ebmkit.interfaces import Buffer, Draw
from ebmkit.watchdog.options import WatchdogOptions

MEMORY = 100
"""Updates over which the usual gradient norm is taken."""
WARM_UP = 20
"""Updates before there is a usual one."""
SMALLEST = 1e-30
"""Gradient norms below count as this, whose logarithm is finite."""
COUNTS = ("updates", "skipped", "not_finite", "drawn", "restarted", "lost", "bad_loss")
"""What is counted between two looks."""


class Guard:
    """Which updates are skipped and which chains start again.

    All is kept in scalar tensors on `device`; a look reads them, a step never does.
    """

    def __init__(self, options: WatchdogOptions, device: str) -> None:
        self.options, self.device = options, device
        self.usual = torch.zeros((), dtype=torch.float64, device=device)
        """The logarithm of the usual gradient norm."""
        self.accepted = torch.zeros((), dtype=torch.int64, device=device)
        self.in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self.good = torch.ones((), dtype=torch.bool, device=device)
        """Whether the last update was made."""
        self.counts = {name: torch.zeros((), dtype=torch.int64, device=device) for name in COUNTS}

    def judge(self, norm: Tensor, finite_only: bool = False) -> Tensor:
        """Whether the update by a gradient of this `norm` is to be made, as a scalar bool tensor."""
        finite = torch.isfinite(norm)
        log = norm.double().clamp_min(SMALLEST).log()
        limit = self.usual + math.log(self.options.gradient_factor)
        good = finite if finite_only else finite & ((self.accepted < WARM_UP) | (log <= limit))
        share = 1.0 / (self.accepted + 1).clamp_max(MEMORY)
        self.usual = torch.where(good, self.usual + share * (log - self.usual), self.usual)
        self.accepted = self.accepted + good
        self.in_a_row = (self.in_a_row + 1) * ~good
        self.good = good
        self._count(updates=good | ~good, skipped=~good, not_finite=~finite)
        return good

    def saw_loss(self, losses: Tensor) -> None:
        """The `losses` of a step's micro-batches, after its update; one that is not finite must not have been used."""
        self._count(bad_loss=~torch.isfinite(losses).all() & self.good)

    def restart(self, buffer: Buffer, drawn: Draw, random: torch.Generator) -> Draw:
        """`drawn` with the chains that are not finite, or beyond `chain_limit`, started again in the `buffer`."""
        bad = ~self._fit(drawn.x)
        self._count(drawn=bad | ~bad, restarted=bad)
        return calls.restart(buffer, drawn, bad, random)

    def put_back(self, after: Tensor, before: Tensor) -> Tensor:
        """The refined chains, with those that are not finite where they were `before`; each `[n, C, H, W]`."""
        lost = ~torch.isfinite(after).flatten(1).all(1)
        self._count(lost=lost)
        return torch.where(lost.view(-1, 1, 1, 1), before, after)

    def read(self) -> dict[str, int]:
        """The counts since the last call, and the updates skipped in a row; waits for the device."""
        values = torch.stack([*self.counts.values(), self.in_a_row]).tolist()
        for count in self.counts.values():
            count.zero_()
        return dict(zip((*COUNTS, "in_a_row"), values, strict=True))

    def forget(self) -> None:
        """After a rollback: the usual gradient norm is found anew."""
        for value in (self.usual, self.accepted, self.in_a_row, *self.counts.values()):
            value.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """What decides about the next updates."""
        return {"usual": self.usual, "accepted": self.accepted, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value.to(self.device))

    def _fit(self, x: Tensor) -> Tensor:
        # Comparisons with NaN are false.
        return x.detach().abs().flatten(1).amax(1) <= self.options.chain_limit

    def _count(self, **seen: Tensor) -> None:
        for name, flags in seen.items():
            self.counts[name] += flags.sum()
