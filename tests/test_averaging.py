"""The moving average of the weights: torch's own numbers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ebmkit.averaging import MovingAverage


class Small(nn.Module):
    """Two types, a buffer that moves, and a parameter of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.wide = nn.Parameter(torch.randn(4, dtype=torch.float64))
        self.places = nn.Parameter(torch.arange(3), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(x))
        return y


def steps(average: AveragedModel, model: nn.Module, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_((3 * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype))
        model(torch.randn(5, 3, generator=generator))
        average.update_parameters(model)


def test_it_is_torchs_average_bit_for_bit_and_a_state_of_one_goes_on_in_the_other() -> None:
    torch.manual_seed(0)
    model = Small()
    models = model, copy.deepcopy(model)
    ours, theirs = MovingAverage(models[0], 0.9), AveragedModel(models[1], multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for count in (1, 4):
        for average, trained in zip((ours, theirs), models, strict=True):
            steps(average, trained, count, seed=count)
        mine, other = ours.state_dict(), theirs.state_dict()
        assert mine.keys() == other.keys()
        # Whole numbers have no mean to move to: ours are the model's.
        assert all(torch.equal(mine[key], other[key]) for key in mine if key != "module.places")
        assert torch.equal(mine["module.places"], models[0].places)
    assert not torch.equal(ours.module.linear.weight, models[0].linear.weight)
    again = MovingAverage(copy.deepcopy(models[0]), 0.9)
    again.load_state_dict(theirs.state_dict())
    for average, trained in zip((again, theirs), models, strict=True):
        steps(average, trained, 2, seed=7)
    assert torch.equal(again.module.wide, theirs.module.wide)
    assert int(again.n_averaged) == 7


def test_the_first_update_is_the_model_itself() -> None:
    model = Small()
    average = MovingAverage(model, 0.999)
    steps(average, model, 1, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(average.module.parameters(), model.parameters(), strict=True))
