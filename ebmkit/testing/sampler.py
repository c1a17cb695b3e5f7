"""The contract of samplers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ebmkit.energy_model import EnergyModel
from ebmkit.interfaces import NoiseSource, Sampler
from ebmkit.noise import GeneratorNoise, PerImageNoise
from ebmkit.pipeline import frozen
from ebmkit.sampling import sweep
from ebmkit.testing.analytic import Bowl, Cone, Slope, gaussian, time_steps_of
from ebmkit.testing.contract import Contract, ContractBroken, require, skip
from ebmkit.testing.globals import seeded, unchanged_globals
from ebmkit.testing.numeric import same

BATCH = 4
CHAINS = 2000


class SamplerContract(Contract):
    """What training and sampling rely on in a sampler, on energies whose gradients are known."""

    gibbs_options: ClassVar[Mapping[str, Any] | None] = None
    """Options with which many steps sample `exp(-f)`, if there are any: small steps, no annealing."""
    gibbs_sweeps: ClassVar[int] = 200
    """Refinements of K steps after which the chains have forgotten their start."""

    def refine(
        self,
        energy: EnergyModel,
        x: Tensor,
        t: Tensor,
        noise: NoiseSource | None = None,
        sampler: Sampler | None = None,
    ) -> Tensor:
        """What the sampler makes of `x`, called as the core calls it: parameters frozen, no gradients."""
        sampler = sampler or self.build()
        with frozen(energy), torch.no_grad():
            refined: Tensor = sampler.refine(energy, x, t, noise or self.noise(len(x)))
        return refined

    def noise(self, count: int, seed: int = 0) -> PerImageNoise:
        """The noise of images 0..count-1 at this seed, as sampling has it."""
        return PerImageNoise(seed, range(count), "cpu")

    def inputs(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Images `[4, C, H, W]` and their time steps, all different where T allows."""
        context = self.context()
        return gaussian(BATCH, context.image_shape, 1, dtype), time_steps_of(BATCH, context.time_steps)

    def test_returns_new_detached_images(self) -> None:
        """`refine` gives a new, detached, finite tensor of the images' shape, type and device."""
        for dtype in (torch.float32, torch.float64):
            x, t = self.inputs(dtype)
            out = self.refine(Bowl(), x, t)
            require(
                isinstance(out, Tensor) and out.shape == x.shape and out.dtype == dtype and out.device == x.device,
                f"refine gives {_kind(out)} for {_kind(x)}; it must give the same shape, type and device",
            )
            require(not out.requires_grad, "refine returns images with a graph: .detach() them")
            require(out.isfinite().all(), "refine gives values that are not finite on a quadratic energy")
            require(out.data_ptr() != x.data_ptr(), "refine returns its own argument: make a new tensor")
            require(not torch.equal(out, x), "refine moves nothing")

    def test_all_randomness_comes_from_the_noise_source(self) -> None:
        """The same noise gives the same images, bit for bit, whatever the global random states are."""
        energy, (x, t) = Bowl(), self.inputs()
        with unchanged_globals("refine"):
            first = self.refine(energy, x, t, self.noise(BATCH, 7))
        with seeded(99):
            second = self.refine(energy, x, t, self.noise(BATCH, 7))
        require(
            torch.equal(first, second),
            "refine gives other images for the same noise: take every random number from noise.normal_like(x) or "
            "noise.uniform_like(x)",
        )

    def test_leaves_no_trace(self) -> None:
        """The images, the time steps, the parameters and their gradients, and the network's mode stay as they are."""
        for training in (False, True):
            energy, (x, t) = Bowl().train(training), self.inputs()
            images, times = x.clone(), t.clone()
            with torch.enable_grad():
                self.build().refine(energy, x, t, self.noise(BATCH))
            require(torch.equal(x, images), "refine changes its images in place: work on a copy")
            require(torch.equal(t, times), "refine changes the time steps in place")
            require(not x.requires_grad, "refine makes the caller's images require gradients: detach() them first")
            require(
                energy.center.grad is None,
                "refine leaves gradients at the parameters: use torch.autograd.grad instead of backward()",
            )
            require(
                energy.training == training and energy.center.requires_grad,
                "refine changes the network's mode or requires_grad; the core sets both, leave them alone",
            )

    def test_works_with_gradients_switched_off(self) -> None:
        """The core calls `refine` under `torch.no_grad()`; it gives the same images, and leaves that setting alone."""
        energy, (x, t) = Bowl(0.5), self.inputs()
        with torch.enable_grad():
            expected = self.build().refine(energy, x, t, self.noise(BATCH))
        try:
            with torch.no_grad(), unchanged_globals("refine"):
                out = self.build().refine(energy, x, t, self.noise(BATCH))
        except RuntimeError as error:
            raise ContractBroken(
                f"refine fails under torch.no_grad(): {str(error).splitlines()[0]}. Put `with torch.enable_grad():` "
                "around what is differentiated"
            ) from error
        require(torch.equal(out, expected), "refine gives other images under torch.no_grad()")

    def test_keeps_no_state_between_calls(self) -> None:
        """A second call of the same object gives the same images: resuming saves no state of a sampler."""
        energy, (x, t), sampler = Bowl(), self.inputs(), self.build()
        first = self.refine(energy, x, t, self.noise(BATCH, 7), sampler)
        second = self.refine(energy, x, t, self.noise(BATCH, 7), sampler)
        require(
            torch.equal(first, second),
            "the second call gives other images: keep nothing on self, since it would be lost when a run is resumed",
        )

    def test_each_image_is_by_itself(self) -> None:
        """An image does not depend on the others of its batch: neither by the gradient nor by the noise."""
        energy, (x, t) = Bowl(), self.inputs(torch.float64)
        together = self.refine(energy, x, t)
        for i in range(BATCH):
            alone = self.refine(energy, x[i : i + 1], t[i : i + 1], PerImageNoise(0, [i], "cpu"))
            require(
                same(together[i : i + 1], alone, 1e-9),
                "an image comes out differently in another batch: differentiate the sum of the energies, take no mean "
                "or norm over the batch, and draw noise for all images each time",
            )

    def test_time_steps_may_differ_within_a_batch(self) -> None:
        """Each image is refined at its own `t`, and the energy is asked with that `t`."""
        last = self.context().time_steps
        energy, x = Bowl(shift=0.5), gaussian(BATCH, self.context().image_shape, 1, torch.float64)
        asked: list[Tensor] = []
        watch = energy.register_forward_pre_hook(lambda _, arguments: asked.append(arguments[1].clone()))
        mixed = self.refine(energy, x, time_steps_of(BATCH, last))
        watch.remove()
        require(
            all(torch.equal(t, time_steps_of(BATCH, last)) for t in asked),
            "the energy is asked at other time steps than those that refine was given: pass t on as it is",
        )
        for step in range(1, last + 1):
            alone = self.refine(energy, x, torch.full((BATCH,), step))
            rows = time_steps_of(BATCH, last) == step
            require(
                same(mixed[rows], alone[rows], 1e-9),
                f"at t = {step} an image comes out differently when others of the batch have other time steps: "
                "t is [B], index schedules by it and pass it on to the energy",
            )

    def test_steps_counts_gradient_evaluations(self) -> None:
        """`steps` is K, the energy evaluations of one `refine` (one more is allowed, for a first or last value)."""
        sampler, (x, t), energy = self.build(), self.inputs(), Bowl()
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        energy.register_forward_hook(count)
        self.refine(energy, x, t, sampler=sampler)
        steps = sampler.steps
        require(isinstance(steps, int) and steps >= 1, f"steps must be a whole number of at least 1, not {steps!r}")
        require(
            steps <= calls <= steps + 1,
            f"steps is {steps}, but refine evaluates the energy {calls} times: steps is what progress bars and the "
            "cost of a sample are counted in",
        )

    def test_follows_its_device(self) -> None:
        """Every tensor of `refine` is made on the context's or the images' device, and no value is read on the way."""

        class Nothing:
            def normal_like(self, x: Tensor) -> Tensor:
                return torch.empty_like(x)

            uniform_like = normal_like

        x, t = self.inputs()
        try:
            out = self.build(device="meta").refine(Bowl().to("meta"), x.to("meta"), t.to("meta"), Nothing())
        except (RuntimeError, NotImplementedError) as error:
            raise ContractBroken(
                f"refine fails on another device: {str(error).splitlines()[0]}. Make tensors with device=x.device, and "
                "read no value (.item(), `if tensor:`), for which a step would wait for the GPU"
            ) from error
        require(out.device.type == "meta", "refine returns images on another device")

    def test_a_sweep_goes_down_the_energy(self) -> None:
        """A whole sweep lowers an energy whose minimum lies far away, of gradient norm 1 or of 30: low on data.

        At norm 1 a sampler of exact temperature 1 may well rise: it follows its noise more than the energy.
        """
        context, before, after = self.context(), 0.0, 0.0
        x, t = gaussian(BATCH, context.image_shape, 1), time_steps_of(BATCH, 1)
        for scale in (1.0, 30.0):
            energy = Cone(center=3.0, scale=scale)
            with frozen(energy), torch.no_grad():
                out = sweep(energy, self.build(), x, context.time_steps, self.noise(BATCH))
                before, after = (float(energy(images, t).mean()) for images in (x, out))
            if after < before:
                return
        require(
            False,
            f"a sweep takes the mean energy from {before:.4g} to {after:.4g}: sampling descends, x - step * gradient "
            "(or choose options with less noise for this test)",
        )

    def test_the_sweep_budget_is_true(self) -> None:
        """`sweep_budget` is what a sweep really travels under a gradient of norm 1, and the variance it really adds."""
        context = self.context()
        told = self.component.sweep_budget(self.bound_options(), context)
        if told is None:
            skip("sweep_budget gives None: the reachability rule is silent about this sampler")
        sizes = (told.travel, told.noise)
        require(
            all(math.isfinite(s) and s >= 0 for s in sizes), f"sweep_budget must be finite and not negative: {told}"
        )

        class Zeros:
            def normal_like(self, x: Tensor) -> Tensor:
                return torch.zeros_like(x)

            def uniform_like(self, x: Tensor) -> Tensor:
                return torch.full_like(x, 0.5)

        count = max(BATCH, 20_000 // math.prod(context.image_shape))
        start = torch.zeros(count, *context.image_shape, dtype=torch.float64)
        sampler, slope, flat = self.build(), Slope().double(), Slope(0.0).double()
        with frozen(slope), torch.no_grad():
            moved = sweep(slope, sampler, start[:1], context.time_steps, Zeros())
        travel = float(moved.detach().square().sum().sqrt())
        require(
            math.isclose(travel, told.travel, rel_tol=0.01, abs_tol=1e-6),
            f"a sweep travels {travel:.4g} under a gradient of norm 1 without noise, but sweep_budget says "
            f"{told.travel:.4g}: return the sum of step_size / 2 over all T*K steps, or None",
        )
        with frozen(flat), torch.no_grad():
            noisy = sweep(flat, sampler, start, context.time_steps, self.noise(count))
        variance = float(noisy.detach().var())
        require(
            math.isclose(variance, told.noise, rel_tol=0.1, abs_tol=1e-9),
            f"a sweep without gradient adds a variance of {variance:.4g} per pixel, but sweep_budget says "
            f"{told.noise:.4g}: return the sum of sigma^2 over all T*K steps, or None",
        )

    def test_samples_the_gibbs_distribution(self) -> None:
        """With `gibbs_options`, many steps on a Gaussian energy give its mean and variance."""
        if self.gibbs_options is None:
            skip("gibbs_options is not set: the sampler is not said to sample exp(-f)")
        options = self._bind({**self._examples(), **self.options, **self.gibbs_options}, "gibbs_options")
        context = self.context(image_shape=(1, 1, 1))
        sampler, energy = self.component(options, context), Bowl(center=0.7, width=0.5).double()
        x, t = gaussian(CHAINS, (1, 1, 1), 3, torch.float64), torch.ones(CHAINS, dtype=torch.int64)
        noise = GeneratorNoise(torch.Generator().manual_seed(0))
        for _ in range(self.gibbs_sweeps):
            x = self.refine(energy, x, t, noise, sampler)
        mean, variance = float(x.mean()), float(x.var())
        # Five standard errors, and 5 % for the bias of a finite step.
        require(
            abs(mean - 0.7) < 5 * 0.5 / math.sqrt(CHAINS) + 0.01,
            f"chains on N(0.7, 0.25) have the mean {mean:.4f}: the sampler does not sample exp(-f) with gibbs_options",
        )
        require(
            abs(variance / 0.25 - 1) < 5 * math.sqrt(2 / CHAINS) + 0.05,
            f"chains on N(0.7, 0.25) have the variance {variance:.4f}: step size and noise do not belong together, or "
            "gibbs_sweeps is too small",
        )


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')} on {value.device}"
