"""How wrong the gradient penalty's gradient by the parameters is in float32 and under bf16 autocast, against float64.

    python benchmarks/penalty_precision.py

One batch of made-up images on the CPU, the UNet of `cifar10_unet` with 32 channels and new weights, WGAN-GP (two-sided,
so always active). The energy is multiplied so that its gradient by the image has the mean norm that is printed: first
as training begins, then in the range where the penalty holds it.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

import ebmkit
from ebmkit.pipeline import build_energy
from ebmkit.precision import autocast
from ebmkit.testing.analytic import gaussian, photographs


def main() -> None:
    """Measure and print."""
    recipe = ebmkit.check("cifar10_unet", {"energy.channels": 32}, warn=lambda message: None)
    model = build_energy(recipe, recipe.context(), [])
    x = torch.cat([photographs(8, recipe.data.shape, 1), gaussian(8, recipe.data.shape, 2)])
    precise = copy.deepcopy(model).double()
    first = float(norms(precise, x.double().requires_grad_(), 1.0).detach().mean())
    for wanted in (first, 1.1, 2.0):
        scale = wanted / first
        exact = gradient(precise, x.double(), scale, "float32")
        for precision in ("float32", "bf16"):
            error = (gradient(model, x, scale, precision).double() - exact).norm() / exact.norm()
            print(f"mean norm {wanted:.2g}, {precision}: relative error {float(error):.2g}")  # noqa: T201


def norms(model: nn.Module, x: torch.Tensor, scale: float) -> torch.Tensor:
    """`||grad_x scale * f(x, t)||` of each image, to be differentiated again."""
    energy = scale * model(x, torch.arange(len(x)) % 20 + 1).to(x.dtype)
    (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
    return slope.flatten(1).norm(dim=1)


def gradient(model: nn.Module, x: torch.Tensor, scale: float, precision: str) -> torch.Tensor:
    """All parameter gradients of `mean (norm - 1)^2` in one vector."""
    with autocast("cpu", precision):
        penalty = (norms(model, x.detach().requires_grad_(), scale) - 1).square().mean()
    parameters = list(model.parameters())
    found = torch.autograd.grad(penalty, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).detach().flatten() for g, p in pairs])


if __name__ == "__main__":
    main()
