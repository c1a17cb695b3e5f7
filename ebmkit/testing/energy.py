"""The contract of energies."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ebmkit.energy_model import EnergyModel
from ebmkit.process_settings import kept
from ebmkit.testing.analytic import gaussian, photographs, time_steps_of
from ebmkit.testing.contract import Contract, ContractBroken, require, skip
from ebmkit.testing.derivatives import check_gradient, check_second_derivative
from ebmkit.testing.globals import seeded, unchanged_globals
from ebmkit.testing.numeric import parameter_gradient, same, trainable

BATCH = 4
STIR = 0.02
"""How far weights are moved before gradients are looked at, as a few steps of training would move them."""


class EnergyContract(Contract):
    """What the core, samplers and penalties rely on in an energy network."""

    def network(self, seed: int = 0, **changes: Any) -> EnergyModel:
        """A new network in evaluation mode, its weights from torch's global generator at `seed`."""
        with seeded(seed):
            model = self.build(**changes).build()
        require(
            isinstance(model, EnergyModel),
            f"build() must return an ebmkit.EnergyModel, not {type(model).__name__}: derive the network from it",
        )
        return model.eval()  # type: ignore[no-any-return]

    def stirred(self, seed: int = 0) -> EnergyModel:
        """`network` after a little training: a layer that begins at zero hides what is behind it."""
        model, random = self.network(seed), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in trainable(model):
                parameter.add_(STIR * torch.randn(parameter.shape, generator=random, dtype=parameter.dtype))
        return model

    def inputs(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Images `[4, C, H, W]`, two smooth and two of noise, and their time steps."""
        context = self.context()
        images = [photographs(2, context.image_shape, 1, dtype), gaussian(2, context.image_shape, 2, dtype)]
        return torch.cat(images), time_steps_of(BATCH, context.time_steps)

    def test_builds_a_float32_network_on_the_cpu(self) -> None:
        """`build` gives a network in float32 on the CPU that has something to train; the core moves it."""
        energy = self.build()
        with kept() as before:
            energy.build()
            changed = before.changed()
        require(not changed, f"build changes {' and '.join(changed)} of the process: give back what it sets")
        model = self.network()
        for name, tensor in model.state_dict().items():
            require(
                tensor.device.type == "cpu",
                f"'{name}' is on {tensor.device}: build on the CPU, the core moves the network",
            )
            require(
                not tensor.is_floating_point() or tensor.dtype == torch.float32,
                f"'{name}' is {tensor.dtype}: build in float32, the core chooses the precision",
            )
        require(trainable(model), "the network has no parameter that can be trained")

    def test_gives_one_energy_for_each_image(self) -> None:
        """`x[B, C, H, W]`, `t[B]` -> finite float32 `[B]`, for any batch size, with and without gradients."""
        model, (x, t) = self.network(), self.inputs()
        for count in (1, 2, BATCH):
            with torch.no_grad():
                energy = model(x[:count], t[:count])
            require(
                isinstance(energy, Tensor) and energy.shape == (count,),
                f"forward gives {_shape(energy)} for {count} images, but must give [{count}]: one scalar for each, "
                "for example by .squeeze(1)",
            )
            require(energy.dtype == torch.float32, f"energies are {energy.dtype} for float32 images, not float32")
            require(energy.isfinite().all(), "an energy is not finite for ordinary images")
        require(model(10 * x, t).isfinite().all(), "an energy is not finite for images of ten times the usual range")

    def test_the_same_seed_builds_the_same_network(self) -> None:
        """Initial weights come from torch's global generator and nothing else."""
        with seeded(5):
            first = self.build().build().state_dict()
        with seeded(6):
            torch.manual_seed(5)
            second = self.build().build().state_dict()
        different = [name for name in first if not torch.equal(first[name], second[name])]
        require(
            not different,
            f"{', '.join(different[:3])} differ between two builds at one torch seed: initialise from torch only",
        )

    def test_evaluation_mode_is_deterministic(self) -> None:
        """In evaluation mode the same images have the same energies, nothing is drawn and no buffer changes."""
        model, (x, t) = self.stirred(), self.inputs()
        before = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            with unchanged_globals("forward in evaluation mode"):
                first = model(x, t)
            with seeded(99):
                second = model(x, t)
        require(torch.equal(first, second), "energies differ between two evaluations: nothing may be random in eval()")
        changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
        require(
            not changed,
            f"forward in evaluation mode changes {', '.join(changed[:3])}: buffers may change in training only",
        )

    def test_training_draws_from_torch_only(self) -> None:
        """In training mode random numbers come from torch's global generator, which the trainer seeds at each step."""
        (x, t), model, other = self.inputs(), self.stirred().train(), self.stirred().train()
        with unchanged_globals("forward in training mode", may_draw="torch's"):
            torch.manual_seed(5)
            first = model(x, t)
        with seeded(99):
            torch.manual_seed(5)
            second = other(x, t)
        require(
            torch.equal(first, second),
            "in training mode energies differ at one torch seed: draw from torch's global generator and nothing else, "
            "or a resumed run goes another way",
        )

    def test_follows_the_type_of_its_parameters(self) -> None:
        """With parameters and images in float64, `forward` and its gradients are float64: differences need them."""
        problem = self._type_problem()
        require(
            not problem,
            f"forward works in float32, but not with parameters and images in float64: {problem}. Make new tensors "
            "with dtype=x.dtype, and convert what is made of t: .to(x.dtype)",
        )

    def test_each_image_is_by_itself(self) -> None:
        """An image's energy does not depend on the other images of the batch, nor on their time steps."""
        model, (x, t) = self.stirred().double(), self.inputs(torch.float64)
        with self._in_float64():
            with torch.no_grad():
                together = model(x, t)
                alone = torch.cat([model(x[i : i + 1], t[i : i + 1]) for i in range(BATCH)])
            require(
                same(together, alone, 1e-6),
                "an image's energy changes with the batch that it is in: no batch norm, nothing that looks across "
                "samples",
            )
            model.train()
            x = x.requires_grad_()
            with seeded(3):
                (gradient,) = torch.autograd.grad(model(x, t)[0], x)
        require(
            not gradient[1:].any(),
            "in training mode an image's energy depends on other images: samplers and penalties sum over the batch to "
            "get gradients per image, so use layer or group norm instead of batch norm",
        )

    def test_the_gradient_by_the_image_is_right(self) -> None:
        """The gradient that samplers follow is finite, not zero, and that of the energy (central difference)."""
        with self._in_float64():
            check_gradient(self.stirred().double(), *self.inputs(torch.float64))

    def test_can_be_differentiated_twice(self) -> None:
        """Gradient penalties differentiate the gradient by the parameters; `twice_differentiable = False` opts out."""
        if not self.component.twice_differentiable:
            skip("twice_differentiable = False: no recipe combines it with a gradient penalty")
        with self._in_float64():
            check_second_derivative(self.stirred().double(), *self.inputs(torch.float64))

    def test_follows_its_device(self) -> None:
        """Every tensor that `forward` uses is a parameter, a buffer, or made on the images' device."""
        x, t = self.inputs()
        try:
            energy = self.network().to("meta")(x.to("meta"), t.to("meta"))
        except (RuntimeError, NotImplementedError) as error:
            raise ContractBroken(
                f"forward fails on another device: {str(error).splitlines()[0]}. Register fixed tensors by "
                "register_buffer, make new ones with device=x.device, and read no value (.item()) on the way"
            ) from error
        require(energy.device.type == "meta", "energies come back on another device than that of the images")

    def test_the_state_dict_is_everything(self) -> None:
        """Loading the `state_dict` of a network after some training steps into another gives the same energies."""
        (x, t), first, second = self.inputs(), self.stirred(seed=1), self.stirred(seed=2)
        first.train()
        with seeded(0):
            # What training may leave in the network besides its weights.
            for _ in range(3):
                first(x, t)
        state = first.state_dict()
        for name, value in state.items():
            require(isinstance(value, Tensor), f"state '{name}' is no tensor and cannot stand in a model file")
        second.load_state_dict(copy.deepcopy(state))
        for training in (False, True):
            first.train(training)
            second.train(training)
            energies = []
            for model in (first, second):
                with torch.no_grad(), seeded(4):
                    energies.append(model(x, t))
            require(
                torch.equal(*energies),
                "a network with the loaded state_dict has other energies: something that matters is neither a "
                "parameter nor a buffer, and is lost in model files and when a run is resumed",
            )

    def test_can_be_copied(self) -> None:
        """The moving average of the weights works on a deep copy with the same energies."""
        (x, t), model = self.inputs(), self.network()
        try:
            other = copy.deepcopy(model)
        except (RuntimeError, TypeError) as error:
            raise ContractBroken(f"copy.deepcopy(model) fails, so that no EMA can be kept: {error}") from error
        with torch.no_grad():
            require(torch.equal(model(x, t), other(x, t)), "a deep copy of the network has other energies")
            for parameter in trainable(other):
                parameter.add_(1)
            require(torch.equal(model(x, t), self.network()(x, t)), "a deep copy shares parameters with its original")

    def test_works_at_other_image_sizes(self) -> None:
        """Built for a wider, a larger or a grey image it works there, unless `problems` says that it cannot."""
        (channels, height, width), t = self.context().image_shape, self.context().time_steps
        shapes = [
            (channels, height, 2 * width),
            (channels, 2 * height, 2 * width),
            (1 if channels > 1 else 3, height, width),
        ]
        options, tried = self.bound_options(), 0
        for shape in shapes:
            if self._problems(options, self.context(image_shape=shape)):
                continue
            tried += 1
            try:
                with torch.no_grad():
                    energy = self.network(image_shape=shape)(gaussian(2, shape), time_steps_of(2, t))
            except (RuntimeError, ValueError, AssertionError) as error:
                raise ContractBroken(
                    f"it does not work for images of {shape} (channels, height, width): {str(error).splitlines()[0]}. "
                    "Take the sizes from context.image_shape, or let problems() refuse those that it cannot take"
                ) from error
            require(energy.shape == (2,), f"for images of {shape} energies have the shape {_shape(energy)}, not [2]")
        if not tried:
            skip("problems() refuses every other image size that was tried")

    def test_forward_leaves_no_trace(self) -> None:
        """`forward` changes neither its arguments nor the network's mode, and leaves no gradients."""
        for training in (False, True):
            model, (x, t) = self.stirred().train(training), self.inputs()
            modes = [module.training for module in model.modules()]
            images, times = x.clone(), t.clone()
            with seeded(0):
                model(x, t)
            require(torch.equal(x, images), "forward changes the images in place: work on a copy")
            require(torch.equal(t, times), "forward changes the time steps in place: work on a copy")
            require(not x.requires_grad, "forward makes the caller's images require gradients: detach() them first")
            require(
                [module.training for module in model.modules()] == modes,
                f"forward switches the network to {'evaluation' if training else 'training'} mode; the core sets the "
                "mode, leave it alone",
            )
            require(all(p.grad is None for p in model.parameters()), "forward leaves gradients at parameters")

    def test_learns_to_tell_data_from_noise(self) -> None:
        """Twenty steps on a fixed batch lower the energy of data against that of noise: low on data."""
        context = self.context()
        data, noise = photographs(BATCH, context.image_shape, 1), gaussian(BATCH, context.image_shape, 2)
        t, model = time_steps_of(BATCH, context.time_steps), self.network().train()
        optimizer = torch.optim.Adam(trainable(model), lr=1e-3)

        def gap() -> Tensor:
            difference: Tensor = model(data, t).mean() - model(noise, t).mean()
            return difference

        with seeded(0):
            before = gap().item()
            for _ in range(20):
                optimizer.zero_grad()
                gap().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            after = gap().item()
        require(
            after < before - 1e-4,
            f"training leaves the energy of data at {after:+.4f} against noise, from {before:+.4f}: gradients do not "
            "reach the parameters that matter",
        )

    # --- how they look at the network --------------------------------------------------------------------------------

    @contextmanager
    def _in_float64(self) -> Iterator[None]:
        """Leave what goes wrong for the sake of the type alone to the rule that is about it."""
        try:
            yield
        except (RuntimeError, TypeError, ContractBroken):
            if self._type_problem():
                skip("it needs float64: see the rule 'follows the type of its parameters'")
            raise

    def _type_problem(self) -> str:
        """What goes wrong in float64 and not in float32, or an empty string."""
        try:
            found = self._derivatives(torch.float64)
        except (RuntimeError, TypeError) as error:
            try:
                self._derivatives(torch.float32)
            except (RuntimeError, TypeError):
                return ""
            return str(error).splitlines()[0].rstrip(".")
        return "" if found == torch.float64 else f"energies are {str(found).removeprefix('torch.')}"

    def _derivatives(self, dtype: torch.dtype) -> torch.dtype:
        """Take every derivative that training takes; the type of the energies."""
        model, (x, t) = self.stirred().to(dtype), self.inputs(dtype)
        x.requires_grad_()
        twice = bool(self.component.twice_differentiable)
        energy = model(x, t)
        (gradient,) = torch.autograd.grad(energy.sum(), x, create_graph=twice)
        if twice:
            parameter_gradient(gradient.square().sum(), model)
        return energy.dtype  # type: ignore[no-any-return]


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
