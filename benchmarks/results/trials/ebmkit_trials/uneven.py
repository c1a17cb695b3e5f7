"""The `uneven_langevin` sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebmkit_langevin.sampler import Langevin, sweep_table
from pydantic import Field

from ebmkit import Context, EnergyFunction, NoiseSource

if TYPE_CHECKING:
    from torch import Tensor


class UnevenLangevin(Langevin):
    """Langevin dynamics (eq. 9) with more steps at some time steps than at others. Not in the paper.

    The sweep is that of `langevin`: the same T*K step sizes and noises in the same order, only divided among the time
    steps as `counts` says. A step is computed for those images alone that have one: as many gradients, in smaller
    batches. With `counts` it does not keep the contract: `steps` is K on average, the energy is asked for a part of the
    batch, and a GPU waits until it is known for which.
    """

    name = "uneven_langevin"

    class Options(Langevin.Options):
        """Options of `uneven_langevin`."""

        counts: tuple[int, ...] = Field(
            default=(),
            description="Langevin steps at t = T, ..., 1, which add up to T*K; without them K at each.",
        )

    options: Options

    def __init__(self, options: Options, context: Context) -> None:
        import torch

        super().__init__(options, context)
        counts = list(options.counts) or [options.steps] * context.time_steps
        self.counts = torch.tensor(counts, device=context.device)
        flat = torch.tensor([pair for row in sweep_table(options, context) for pair in row], dtype=torch.float64)
        rows = flat.to(torch.float32).to(context.device).split(counts)
        table = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        self.step_sizes, self.sigmas = table.unbind(-1)
        """eta and sigma, `[T, max(counts)]`: the first row belongs to t = T, and what it does not use is 0."""

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        """The steps of eq. 9 that each of `x[B, C, H, W]` has at its `t[B]`."""
        from ebmkit_langevin.functional import langevin_step

        from ebmkit import energy_gradient

        if not self.options.counts:
            return super().refine(energy, x, t, noise)
        x, row = x.detach().clone(), self.context.time_steps - t
        step_sizes, sigmas, counts = self.step_sizes.to(x.dtype)[row], self.sigmas.to(x.dtype)[row], self.counts[row]
        # As often as any time step wants, and noise for all: what an image gets does not depend on the others.
        for k in range(max(self.options.counts)):
            drawn, moving = noise.normal_like(x), (counts > k).nonzero().flatten()
            if not len(moving):
                continue
            gradient = energy_gradient(energy, x[moving], t[moving])
            x[moving] = langevin_step(x[moving], gradient, step_sizes[moving, k], sigmas[moving, k], drawn[moving])
        return x

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """Counts that do not make a sweep of T*K steps, and what steps do not do."""
        found = super().problems(options, context)
        total = context.time_steps * options.steps
        if options.counts and (len(options.counts) != context.time_steps or sum(options.counts) != total):
            found.append(
                f"counts: must be {context.time_steps} numbers, one for each time step, that add up to {total}"
            )
        if min(options.counts, default=1) < 1:
            found.append("counts: every time step needs at least one Langevin step")
        others = options.anneal != "step", options.clip_gradient is not None, options.clamp is not None
        if options.counts and any(others):
            found.append("counts: with them 'uneven_langevin' anneals over steps, and neither clips nor clamps")
        return found
