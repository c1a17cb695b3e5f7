"""Whether the derivatives of an energy network are right: by the images, and of those by the parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from ebmkit.energy_model import EnergyModel
from ebmkit.testing.contract import ContractBroken, require
from ebmkit.testing.numeric import along_parameters, central_difference, parameter_gradient, same


def check_gradient(model: EnergyModel, x: Tensor, t: Tensor) -> None:
    """Raise `ContractBroken` unless the gradient by the images `x` is there, and that of the energy (float64)."""
    x.requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(model(x, t).sum(), x)
    except RuntimeError as error:
        raise ContractBroken(f"the energy cannot be differentiated by the image: {error}") from error
    require(gradient.isfinite().all(), "the energy's gradient by the image is not finite")
    require(
        gradient.flatten(1).any(1).all(),
        "the energy's gradient is zero: the image is detached, rounded or clamped on its way",
    )
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=x.dtype)
    exact = (gradient * direction).sum()
    with torch.no_grad():
        # The shorter step is for networks with many kinks, the longer one for slopes that are small beside the energy.
        slopes = [central_difference(lambda e: model(x + e * direction, t).sum(), step) for step in (1e-7, 1e-5)]
    slope = min(slopes, key=lambda slope: float((slope - exact).abs()))
    require(
        same(slope, exact, 1e-3),
        f"the energy changes by {float(slope):.6g} along a direction where autograd says {float(exact):.6g}: "
        "a custom backward is wrong, or a part is detached",
    )


def check_second_derivative(model: EnergyModel, x: Tensor, t: Tensor) -> None:
    """Raise `ContractBroken` unless the gradient by the images can be differentiated by the parameters (float64)."""

    def squared_gradient(create_graph: bool) -> Tensor:
        image = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(image, t).sum(), image, create_graph=create_graph)
        return gradient.square().sum()

    try:
        exact = parameter_gradient(squared_gradient(create_graph=True), model)
    except RuntimeError as error:
        raise ContractBroken(
            f"the energy cannot be differentiated twice ({error}): replace what has no double backward (fused "
            "attention, custom autograd), or set twice_differentiable = False"
        ) from error
    require(
        any(item.any() for item in exact),
        "the gradient by the image does not depend on any parameter: a gradient penalty would train nothing",
    )
    slope, expected = along_parameters(lambda: squared_gradient(create_graph=False), model, exact)
    require(
        same(slope, expected, 1e-2),
        f"the squared gradient changes by {float(slope):.6g} where double backward says {float(expected):.6g}: "
        "a custom backward is not itself differentiable; mend it, or set twice_differentiable = False",
    )
