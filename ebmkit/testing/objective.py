"""The contract of objectives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ebmkit.chains import BufferChains
from ebmkit.energy_model import EnergyModel
from ebmkit.interfaces import Buffer, Context, Draw, EnergyFunction, NoiseSource, Objective, Pairs, Sampler
from ebmkit.pipeline import frozen
from ebmkit.testing.analytic import Bowl, make_once_differentiable, photographs, small_network
from ebmkit.testing.contract import Contract, require
from ebmkit.testing.globals import seeded, unchanged_globals
from ebmkit.testing.numeric import parameter_gradient, trainable
from ebmkit.testing.terms import BATCH, RESERVED, differentiates_twice, require_term, require_untouched, values_of


class ObjectiveContract(Contract):
    """What training relies on in an objective: its pairs, its loss, and that data ends up low."""

    def network(self) -> EnergyModel:
        """The energy to train: a small smooth network. Override it if the objective needs one of its own kind."""
        return small_network(self.context().image_shape, self.context().time_steps)

    def pairs(self, energy: EnergyModel, x_pos: Tensor, seed: int = 0, objective: Objective | None = None) -> Pairs:
        """The pairs of one training step, made as the trainer makes them."""
        random = torch.Generator().manual_seed(seed)
        context, labels = self.context(), torch.arange(len(x_pos)) % 3 - 1
        chains = BufferChains(energy, _Steps(None, context), _Noise(None, context), random)
        with frozen(energy), torch.no_grad():
            pairs: Pairs = (objective or self.build()).pairs(energy, x_pos, labels, chains, random)
        return pairs

    def images(self) -> Tensor:
        """Real images, `[4, C, H, W]`."""
        return photographs(BATCH, self.context().image_shape, 1)

    def test_gives_whole_pairs(self) -> None:
        """`pairs` gives images, as many detached chains of the same shape, time steps in 1..T and, or not, slots."""
        energy, x_pos, last = self.network(), self.images(), self.context().time_steps
        kept = x_pos.clone()
        pairs = self.pairs(energy, x_pos)
        require(isinstance(pairs, Pairs), f"pairs must return ebmkit.Pairs, not {type(pairs).__name__}")
        require(torch.equal(x_pos, kept), "pairs changes the real images in place")
        require(pairs.energy is energy, "pairs.energy must be the energy that is trained, as it was given")
        require(
            pairs.x_neg.shape == pairs.x_pos.shape,
            f"x_neg is {list(pairs.x_neg.shape)}, x_pos {list(pairs.x_pos.shape)}: regularizers need them alike",
        )
        require(not pairs.x_neg.requires_grad, "x_neg has a graph: chains are constants for the loss")
        t = pairs.t
        require(
            t.shape == pairs.x_pos.shape[:1] and t.dtype == torch.int64,
            f"t must be int64 [{len(pairs.x_pos)}], not {str(t.dtype).removeprefix('torch.')} {list(t.shape)}",
        )
        inside = ((t >= 1) & (t <= last)).all()
        require(inside, f"t must be in 1..{last}, but goes from {int(t.min())} to {int(t.max())}")
        require(
            pairs.slots is None or pairs.slots.shape == (len(pairs.x_neg),),
            "slots must be one for each chain that goes back to the buffer, or None if none does",
        )

    def test_randomness_comes_from_the_generator(self) -> None:
        """Equal generators give the same pairs and loss, call after call; no global random state is used."""
        energy, objective = self.network().train(), self.build()
        with unchanged_globals("the objective"):
            first = self.pairs(energy, self.images(), 3, objective)
            value = objective.loss(first).value
        with seeded(99):
            second = self.pairs(energy, self.images(), 3, objective)
            again = objective.loss(second).value
        same = torch.equal(first.x_neg, second.x_neg) and torch.equal(first.t, second.t) and torch.equal(value, again)
        require(
            same,
            "a second call with an equal generator gives other pairs or another loss: take random numbers from the "
            "generator only, and keep nothing on self, which would be lost when a run is resumed",
        )

    def test_the_loss_is_a_term(self) -> None:
        """`loss` gives a finite scalar with a graph, and detached scalar metrics."""
        pairs = self.pairs(self.network().train(), self.images())
        term = require_term(self.build().loss(pairs), "the loss")
        # Those of regularizers stand under the regularizer's name.
        taken = sorted(RESERVED & term.metrics.keys())
        require(
            not taken,
            f"metric '{', '.join(taken)}' of the loss has the name of one of ebmkit's own numbers in metrics.jsonl: "
            "choose another",
        )

    def test_the_loss_trains_the_parameters(self) -> None:
        """The loss reaches the parameters, with finite gradients."""
        energy = self.network().train()
        gradient = parameter_gradient(self.build().loss(self.pairs(energy, self.images())).value, energy)
        require(all(bool(item.isfinite().all()) for item in gradient), "a gradient of the loss is not finite")
        require(any(bool(item.any()) for item in gradient), "no parameter gets a gradient from the loss")

    def test_double_backward_is_declared(self) -> None:
        """A loss that differentiates a gradient says so: `needs_double_backward = True`."""
        model = make_once_differentiable(self.network()).train()
        needed = differentiates_twice(self.build().loss(self.pairs(model, self.images())).value)
        require(
            self.component.needs_double_backward or not needed,
            "the loss differentiates a gradient: set needs_double_backward = True, so that `ebmkit check` refuses "
            "energies that cannot",
        )
        require(
            needed or not self.component.needs_double_backward,
            "needs_double_backward = True, but the loss can be had from one backward pass: set it to False",
        )

    def test_the_loss_leaves_no_trace(self) -> None:
        """Pairs, their energies, gradients and the network's mode are as they were before `loss`."""
        energy = self.network().train()
        pairs, kept = self.pairs(energy, self.images()), self.pairs(energy, self.images())
        energies = values_of(pairs)
        self.build().loss(pairs)
        require_untouched(pairs, kept, energies, "loss")

    def test_training_lowers_the_energy_of_data(self) -> None:
        """A quadratic energy, trained on images around 1, moves its minimum from 0 towards them: low on data."""
        energy = self.bowl().train()
        x_pos = 1 + 0.1 * self.images()
        optimizer, objective = torch.optim.SGD(trainable(energy), lr=1e-3), self.build()
        before = self._gap(energy, x_pos)
        for step in range(20):
            optimizer.zero_grad()
            objective.loss(self.pairs(energy, x_pos, step, objective)).value.backward()
            torch.nn.utils.clip_grad_norm_(trainable(energy), 10.0)
            optimizer.step()
        after = self._gap(energy, x_pos)
        require(
            after < before,
            f"training takes the energy of data against that of noise from {before:.4g} to {after:.4g}: minimising the "
            "loss must lower f on data and raise it on chains, mean f(x_pos) - mean f(x_neg)",
        )

    def bowl(self) -> EnergyModel:
        """A quadratic energy with a trainable minimum. Override it with `network`."""
        return Bowl()

    def _gap(self, energy: EnergyModel, x_pos: Tensor) -> float:
        t = torch.ones(len(x_pos), dtype=torch.int64)
        with torch.no_grad():
            return float(energy(x_pos, t).mean() - energy(torch.zeros_like(x_pos), t).mean())


class _Steps(Sampler):
    """Two small gradient steps with noise: the sampler of these tests."""

    name = "steps"

    @property
    def steps(self) -> int:
        return 2

    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        for _ in range(self.steps):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(energy(x, t).sum(), x)
            # Bounded, since an objective may hand over an energy as steep as it likes.
            norm = gradient.flatten(1).norm(dim=1).clamp_min(1.0).view(-1, 1, 1, 1)
            x = x.detach() - gradient / norm + 0.01 * noise.normal_like(x)
        return x


class _Noise(Buffer):
    """Chains of noise at any time step: the buffer of these tests."""

    name = "noise"

    def draw(self, n: int, generator: torch.Generator) -> Draw:
        context: Context = self.context
        t = torch.randint(1, context.time_steps + 1, (n,), generator=generator)
        return Draw(torch.arange(n), torch.randn(n, *context.image_shape, generator=generator), t)

    def store(self, slots: Tensor, x: Tensor) -> None:
        """Nothing is kept."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing is kept."""
