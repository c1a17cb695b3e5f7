"""The sampler `underdamped`: the contract for samplers, and its equation."""

from __future__ import annotations

import torch
from ebmkit import Context
from ebmkit.noise import GeneratorNoise
from ebmkit.testing import SamplerContract
from torch import Tensor

from ebmkit_underdamped.sampler import Underdamped


class TestUnderdampedContract(SamplerContract):
    """The rules for every sampler; with these options it has to sample exp(-f)."""

    component = Underdamped
    gibbs_options = {"steps": 10, "step_size": 0.1, "temperature": 1.0}


def test_without_temperature_it_is_a_falling_ball_with_friction() -> None:
    """Under a constant force the velocity follows `v <- a v - h`, from rest."""

    def slope(x: Tensor, t: Tensor) -> Tensor:
        return x.sum((1, 2, 3))

    options = Underdamped.Options(steps=2, step_size=0.5, friction=2.0, temperature=0.0)
    sampler = Underdamped(options, Context((1, 1, 1), time_steps=1))
    x, t = torch.zeros(3, 1, 1, 1, dtype=torch.float64), torch.ones(3, dtype=torch.int64)
    out = sampler.refine(slope, x, t, GeneratorNoise(torch.Generator().manual_seed(0)))
    first = -0.5
    second = options.decay * first - 0.5
    torch.testing.assert_close(out, torch.full_like(x, 0.5 * (first + second)))
