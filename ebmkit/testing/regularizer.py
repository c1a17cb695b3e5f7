"""The contract of regularizers."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from ebmkit.energy_model import EnergyModel
from ebmkit.interfaces import Pairs, Regularizer, Term
from ebmkit.testing.analytic import gaussian, make_once_differentiable, small_network, time_steps_of
from ebmkit.testing.contract import Contract, ContractBroken, require, skip
from ebmkit.testing.globals import seeded, unchanged_globals
from ebmkit.testing.numeric import along_parameters, parameter_gradient, same
from ebmkit.testing.terms import differentiates_twice, make_pairs, require_term, require_untouched, values_of

SCALES = (0.1, 1000.0)
"""Energies of gentle and of steep slope: one-sided penalties are exactly zero on gentle ones."""


class RegularizerContract(Contract):
    """What training relies on in a regularizer: its penalty, its change of the network, or both."""

    def network(self, scale: float = 1.0, seed: int = 0) -> EnergyModel:
        """A small smooth network in training mode, prepared by the regularizer."""
        context = self.context()
        model = small_network(context.image_shape, context.time_steps, seed, scale)
        with seeded(seed):
            self.build().prepare(model)
        return model.train()

    def pairs(self, energy: EnergyModel, dtype: torch.dtype = torch.float32) -> Pairs:
        """Images, chains and time steps of one training step."""
        return make_pairs(energy, self.context().image_shape, self.context().time_steps, dtype)

    def penalty(self, pairs: Pairs, seed: int = 0, regularizer: Regularizer | None = None) -> Term | None:
        """The penalty of these pairs, with the generator of a training step."""
        return (regularizer or self.build()).penalty(pairs, torch.Generator().manual_seed(seed))

    def test_prepare_draws_from_torch_only(self) -> None:
        """Random numbers of `prepare` come from torch's global generator and nothing else, as a network's weights."""
        states = []
        for seed in (0, 99):
            model, regularizer = small_network(*self._sizes()), self.build()
            with seeded(seed), unchanged_globals("prepare", may_draw="torch's"):
                torch.manual_seed(5)
                regularizer.prepare(model)
            states.append(model.state_dict())
        different = [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]
        require(
            not different,
            f"prepare gives other {', '.join(different[:3])} at one torch seed: draw from torch's global generator "
            "and nothing else",
        )

    def test_randomness_comes_from_the_generator(self) -> None:
        """Equal generators give the same penalty, bit for bit and call after call; no global random state is used."""
        model, regularizer = self.network(SCALES[-1]), self.build()
        if self._changes_network():
            model.eval()
        if self.penalty(self.pairs(model)) is None:
            skip("no penalty: it changes the network only")
        with unchanged_globals("penalty"):
            first = self.penalty(self.pairs(model), 3, regularizer)
        with seeded(99):
            second = self.penalty(self.pairs(model), 3, regularizer)
        assert first is not None
        assert second is not None
        require(
            torch.equal(first.value, second.value),
            "a second call with an equal generator gives another penalty: take every random number from the generator, "
            "and keep nothing on self, which would be lost when a run is resumed",
        )

    def test_does_something(self) -> None:
        """It has a penalty that is not zero on some energy, or it changes the network."""
        plain, prepared = small_network(*self._sizes()), self.network()
        changed = _outline(plain) != _outline(prepared)
        values = [self._value(scale) for scale in SCALES]
        require(
            changed or any(value is not None and value != 0 for value in values),
            "it does nothing: prepare changes nothing, and the penalty is None or zero on a gentle and a steep energy "
            "(choose options under which it does something)",
        )

    def test_the_penalty_is_a_term(self) -> None:
        """`penalty` gives a finite scalar with a graph, weight included, and detached scalar metrics; or None."""
        for scale in SCALES:
            term = self.penalty(self.pairs(self.network(scale)))
            if term is None:
                skip("no penalty: it changes the network only")
            require_term(term, "the penalty")

    def test_the_penalty_trains_the_parameters(self) -> None:
        """The penalty's gradient by the parameters is what a difference says, and not zero on some energy (float64)."""
        reached = False
        for scale in SCALES:
            model = self.network(scale).double()
            pairs = self.pairs(model, torch.float64)
            term = self.penalty(pairs)
            if term is None:
                skip("no penalty: it changes the network only")
            try:
                gradient = parameter_gradient(term.value, model)
            except RuntimeError as error:
                raise ContractBroken(f"the penalty cannot be differentiated by the parameters: {error}") from error
            reached |= any(bool(item.any()) for item in gradient)
            if self._changes_network():
                # Power iterations and the like move with every forward pass: no difference can be taken.
                continue

            def again(model: EnergyModel = model) -> Tensor:
                found = self.penalty(self.pairs(model, torch.float64))
                assert found is not None
                return found.value

            slope, expected = along_parameters(again, model, gradient)
            require(
                same(slope, expected, 1e-2),
                f"the penalty changes by {float(slope):.6g} along a direction of the parameters where autograd says "
                f"{float(expected):.6g}: something on the way is detached, or create_graph=True is missing",
            )
        require(reached, "no parameter gets a gradient from the penalty: it would train nothing")

    def test_the_penalty_leaves_no_trace(self) -> None:
        """Images, time steps, energies, gradients and the network's mode are as they were before `penalty`."""
        model = self.network(SCALES[-1])
        pairs, kept = self.pairs(model), self.pairs(model)
        energies = values_of(pairs)
        if self.penalty(pairs) is None:
            skip("no penalty: it changes the network only")
        require_untouched(pairs, kept, energies, "penalty")

    def test_double_backward_is_declared(self) -> None:
        """A penalty that differentiates a gradient says so: `needs_double_backward = True`."""
        declared = self.component.needs_double_backward
        if self.penalty(self.pairs(self.network())) is None:
            require(not declared, "needs_double_backward = True, but there is no penalty")
            skip("no penalty: it changes the network only")
        needed = False
        for scale in SCALES:
            model = make_once_differentiable(self.network(scale)).train()
            term = self.penalty(self.pairs(model))
            assert term is not None
            needed |= differentiates_twice(term.value)
        require(
            declared or not needed,
            "the penalty differentiates a gradient: set needs_double_backward = True, so that `ebmkit check` refuses "
            "energies that cannot",
        )
        require(
            needed or not declared,
            "needs_double_backward = True, but the penalty can be had from one backward pass: set it to False",
        )

    def test_prepare_keeps_the_energy_whole(self) -> None:
        """After `prepare` the network still gives finite energies `[B]`, trains, and can be copied."""
        context, model = self.context(), self.network()
        x, t = gaussian(3, context.image_shape), time_steps_of(3, context.time_steps)
        energy = model(x, t)
        require(energy.shape == (3,) and energy.isfinite().all(), "after prepare the network gives no energies [B]")
        require(
            any(bool(g.any()) for g in parameter_gradient(energy.sum(), model)),
            "after prepare no parameter gets a gradient",
        )
        model.eval()
        with torch.no_grad():
            require(
                torch.equal(model(x, t), copy.deepcopy(model)(x, t)),
                "after prepare a deep copy has other energies, so that no EMA can be kept",
            )

    def test_prepare_declares_what_it_does_to_the_state_dict(self) -> None:
        """`changes_state_dict` is True if, and only if, `prepare` adds, drops, renames or reshapes parameters."""
        declared = self.component.changes_state_dict
        changed = _outline(small_network(*self._sizes())) != _outline(self.network())
        require(
            declared or not changed,
            "prepare changes the state_dict: set changes_state_dict = True, so that resumed runs and model files are "
            "held to the same regularizer",
        )
        require(changed or not declared, "changes_state_dict = True, but prepare leaves the state_dict as it was")

    def test_a_prepared_network_loads(self) -> None:
        """Weights of one prepared network, loaded into another, give the same energies, bit for bit."""
        context, first, second = self.context(), self.network(seed=1), self.network(seed=2)
        x, t = gaussian(3, context.image_shape), time_steps_of(3, context.time_steps)
        first(x, t).sum().backward()
        second.load_state_dict(first.state_dict())
        first.eval()
        second.eval()
        with torch.no_grad():
            require(
                torch.equal(first(x, t), second(x, t)),
                "a prepared network with loaded weights has other energies: what prepare adds must be parameters or "
                "buffers",
            )

    def test_the_gradient_bound_is_a_norm(self) -> None:
        """`gradient_bound` is None, or a finite norm above zero."""
        bound: Any = self.component.gradient_bound(self.bound_options())
        require(
            bound is None or (isinstance(bound, int | float) and math.isfinite(bound) and bound > 0),
            f"gradient_bound must be None or a finite number above 0, not {bound!r}",
        )

    def _sizes(self) -> tuple[tuple[int, int, int], int]:
        return self.context().image_shape, self.context().time_steps

    def _changes_network(self) -> bool:
        return bool(self.component.changes_state_dict)

    def _value(self, scale: float) -> float | None:
        term = self.penalty(self.pairs(self.network(scale)))
        return None if term is None else term.value.item()


def _outline(model: EnergyModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
