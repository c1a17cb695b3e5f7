"""The energy as samplers, objectives and penalties get it: evaluated and differentiated the fast way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ebmkit.fast.parts import Parts
from ebmkit.pipeline import frozen
from ebmkit.precision import autocast

if TYPE_CHECKING:
    from ebmkit.interfaces import EnergyFunction

Say = Callable[[str], None]
MOST_COMPILATIONS = 256
"""In one process; torch's own accumulated limit."""


def energy_gradient(energy: EnergyFunction, x: Tensor, t: Tensor, create_graph: bool = False) -> Tensor:
    """`grad_x f(x, t)`, `[B, C, H, W]`, by whatever means is fastest for this energy; parameters get no gradient.

    With `create_graph` it can be differentiated once by the parameters, as gradient penalties do; without, it is
    detached. Works under `torch.no_grad()`, too.
    """
    if isinstance(energy, FastEnergy):
        return energy.gradient(x, t, create_graph)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        # The sum over the batch has each sample's own gradient, because energies do not mix samples.
        (gradient,) = torch.autograd.grad(energy(x, t).sum(), x, create_graph=create_graph)
    return gradient if create_graph else gradient.detach()


class FastEnergy:
    """`f(x[B, C, H, W], t[B]) -> energy[B]` of a network, compiled for batches of one shape if `parts` say so.

    Compiled code cannot be differentiated twice by autograd, so that it is used only where nobody will: in `gradient`,
    whose inner derivative is part of what is compiled, and in calls whose `x` needs no gradient. All else is eager.
    """

    def __init__(self, model: nn.Module, parts: Parts) -> None:
        self.model = model
        self.precision = parts.precision
        self.concatenated = parts.concatenate
        """Whether positives and negatives are evaluated in one batch."""
        self.shape: torch.Size | None = None
        """That of the batches for which it is compiled."""
        self.compiling = 0.0
        """Seconds that `compile` took, all of its calls together."""
        self.refused = False
        """Whether it failed here: with other shapes it would again, after as many minutes."""
        self._both: torch.Size | None = None
        self._graphs = False

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Energies `[B]` of `x[B, C, H, W]` at `t[B]`."""
        compiled = x.shape in (self.shape, self._both) and not x.requires_grad and torch.is_grad_enabled()
        # Always in this order of memory: any other would be compiled for once more.
        energy: Tensor = self._forward(_in_order(x), t) if compiled else self.model(x, t)
        return energy

    def gradient(self, x: Tensor, t: Tensor, create_graph: bool = False) -> Tensor:
        """What `energy_gradient` says."""
        if x.shape != self.shape:
            return energy_gradient(self.model, x, t, create_graph)
        x = _in_order(x.detach())
        if create_graph:
            with torch.enable_grad():
                differentiable: Tensor = self._twice(x, t)
            return differentiable
        with torch.no_grad():
            gradient: Tensor = self._once(x, t)
        # The next replay of a CUDA graph writes into the same memory.
        return gradient.clone() if self._graphs else gradient

    def compile(
        self, shape: tuple[int, ...], device: str, say: Say, graphs: bool = False, trained: bool = True
    ) -> bool:
        """Compile for batches of `shape` `[B, C, H, W]`, and try it; whether it works.

        `graphs` replays the gradient as a CUDA graph; `trained` tries the derivatives by the parameters, too. Where
        anything fails on this machine, `say` is told and everything stays eager.
        """
        say("compiling the network: a minute or two, less the next time")
        x, t = torch.zeros(shape, device=device), torch.ones(shape[0], dtype=torch.int64, device=device)
        self._graphs = graphs
        self._once = _compiled(self._gradient_of_sum, "reduce-overhead" if graphs else None)
        self._twice = _compiled(self._gradient_of_sum)
        self._forward = _compiled(self.model)
        self.shape, self._both = x.shape, torch.Size((2 * shape[0], *shape[1:]))
        begin = time.perf_counter()
        devices = [x.device] if x.is_cuda else []
        try:
            # Compiled code is counted by function, for all networks and shapes of this process; after eight of them
            # torch would go on eagerly, with nobody told.
            with torch.random.fork_rng(devices), torch._dynamo.config.patch(recompile_limit=MOST_COMPILATIONS):
                self._try(x, t, trained)
        except torch.OutOfMemoryError:
            raise
        except (torch._dynamo.exc.TorchDynamoException, RuntimeError, NotImplementedError, OSError) as error:
            self.shape = self._both = None
            self.refused = True
            # What the compiler's own errors wrap.
            cause = getattr(error, "inner_exception", error)
            lines = [line for line in str(cause).splitlines() if line.strip()]
            reason = lines[0] if lines else type(cause).__name__
            say(
                f"warning: the network cannot be compiled here and stays eager ({reason}); fast.compile = 'off' says so"
            )
            return False
        finally:
            self.compiling += time.perf_counter() - begin
        return True

    def _try(self, x: Tensor, t: Tensor, trained: bool) -> None:
        # Such as the vectors of spectral norm, which move with each evaluation.
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            with autocast(str(x.device), self.precision), frozen(self.model), torch.no_grad():
                for _ in range(2):
                    self.gradient(x, t)
            for _ in range(2 if trained else 0):
                self._try_training(x, t)
        finally:
            self.model.zero_grad(set_to_none=True)
            for buffer, value in before:
                buffer.copy_(value)

    def _try_training(self, x: Tensor, t: Tensor) -> None:
        with autocast(str(x.device), self.precision):
            loss = sum(energy.mean() for energy in both_energies(self, x, x, t))
        gradient = self.gradient(x, t, create_graph=True)
        if not gradient.requires_grad:
            raise RuntimeError("the compiled gradient depends on no parameter")
        (loss + gradient.square().sum()).backward()  # type: ignore[no-untyped-call]
        self.model.zero_grad(set_to_none=True)

    def _gradient_of_sum(self, x: Tensor, t: Tensor) -> Tensor:
        gradient: Tensor = torch.func.grad(lambda images: self.model(images, t).sum())(x)
        return gradient


def both_energies(energy: EnergyFunction, x_pos: Tensor, x_neg: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """`f(x_pos, t)` and `f(x_neg, t)`, each `[B]`, in one evaluation where that is faster."""
    if not getattr(energy, "concatenated", False) or x_pos.shape != x_neg.shape:
        return energy(x_pos, t), energy(x_neg, t)
    positive, negative = energy(torch.cat([x_pos, x_neg]), torch.cat([t, t])).chunk(2)
    return positive, negative


def _in_order(x: Tensor) -> Tensor:
    """Contiguous, and with the usual strides even for one channel, where others would do."""
    return x.contiguous().view(-1).view(x.shape)


def _compiled(function: Callable[..., Any], mode: str | None = None) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(function, dynamic=False, mode=mode)
    return compiled
