"""The interfaces that plugins implement. Importing this module never imports torch.

One sign convention everywhere: energy is **low on data**, `p_t(x) ~ exp(-f(x, t))` (eq. 5, 8). Sampling descends `f`;
training lowers `f` on data and raises it on samples.

Shapes: `x` is `[B, C, H, W]`, float, data scaled to [-1, 1]; `t` is `[B]`, int64, one time step in `{1..T}` per sample;
energies are `[B]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ebmkit.energy_model import EnergyModel

PLUGIN_API = 1
"""Version of these interfaces. A plugin module states the version that it was written for as `PLUGIN_API = 1`."""

KINDS = ("energy", "sampler", "buffer", "regularizer", "schedule", "objective")
"""The kinds of component, in the order in which commands list them."""

Metrics: TypeAlias = "Mapping[str, Tensor]"
"""Named scalars to log, as detached tensors: they are read late, so that a step never waits for the device."""

EnergyFunction: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""`f(x[B, C, H, W], t[B]) -> energy[B]`."""


class BaseOptions(BaseModel):
    """Base of every component's nested `Options`: frozen, strictly typed, unknown keys forbidden."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )


@dataclass(frozen=True)
class Context:
    """What a component may know of the run that it is built for, and nothing else.

    `image_shape` is `(C, H, W)`, `time_steps` is T, `device` a torch device string.
    """

    image_shape: tuple[int, int, int]
    time_steps: int
    device: str = "cpu"
    rank: int = 0
    world_size: int = 1
    seed: int = 0


class Component(ABC):
    """What all kinds share: a `name` for recipes, a docstring for `ebmkit describe`, and typed `Options`."""

    kind: ClassVar[str]
    name: ClassVar[str]

    class Options(BaseOptions):
        """No options."""

    def __init__(self, options: Any, context: Context) -> None:
        self.options = options
        self.context = context

    @classmethod
    def problems(cls, options: Any, context: Context) -> list[str]:
        """What is wrong with `options` in this `context`, for `ebmkit check`; runs without torch or a device.

        A message that begins with an option's name and a colon is shown at that key of the recipe.
        """
        return []


class Schedule(ABC):
    """A pure function of progress, so that a resumed run needs no state of it. Built from its options alone."""

    kind: ClassVar[str] = "schedule"
    name: ClassVar[str]

    class Options(BaseOptions):
        """No options."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """The value at `progress` in [0, 1]: 0 at the start, 1 at the end.

        A sampler's progress is 1 at the very last step of a sweep; training's is the share of `train.steps` done.
        """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.options == other.options

    def __hash__(self) -> int:
        return hash((type(self), self.options))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.options!r})"


class Energy(Component):
    """Builds the energy network. Apart from the network itself, so that recipes are checked without torch."""

    kind = "energy"

    @abstractmethod
    def build(self) -> EnergyModel:
        """A new network, `forward(x[B, C, H, W], t[B]) -> energy[B]`, low on data; float32, on the CPU.

        A network that has no use for `t` ignores it. Initial weights come from torch's global generator.
        """


class NoiseSource(Protocol):
    """Where a sampler's randomness comes from: one generator in training, one stream per image in sampling."""

    def normal_like(self, x: Tensor) -> Tensor:
        """Independent N(0, 1) values of the shape, type and device of `x` (`[B, ...]`)."""

    def uniform_like(self, x: Tensor) -> Tensor:
        """Independent U[0, 1) values of the shape, type and device of `x` (`[B, ...]`)."""


class SweepBudget(NamedTuple):
    """What the reachability rule needs of a sampler, over one whole sweep of T*K steps (see `ebmkit.reachability`)."""

    travel: float
    """The longest way a chain can go where the gradient norm is 1: sum of `eta / 2`."""
    noise: float
    """The variance per pixel that the sampler adds: S = sum of `sigma^2`."""
    needs_gradient_bound: bool = False
    """The step size was chosen for a per-sample gradient norm of about 1, which some regularizer must then keep."""


class Sampler(Component):
    """Refines images at fixed time steps by K Langevin-like steps. The sweep over `t` belongs to the core."""

    kind = "sampler"

    @property
    @abstractmethod
    def steps(self) -> int:
        """K: gradient evaluations for each time step."""

    @abstractmethod
    def refine(self, energy: EnergyFunction, x: Tensor, t: Tensor, noise: NoiseSource) -> Tensor:
        """K steps from `x[B, C, H, W]` at `t[B]` down the energy; a new, detached tensor of the same shape.

        Called with the parameters frozen and the model in evaluation mode; `x` is left unchanged. `t` is the place in
        the sweep: T at its begin, 1 at its end, and may differ from sample to sample.
        """

    @classmethod
    def sweep_budget(cls, options: Any, context: Context) -> SweepBudget | None:
        """How far one sweep can go, or None where the reachability rule says nothing about this sampler."""
        return None


class Draw(NamedTuple):
    """Chains to go on with: buffer `slots[n]` (int64), their images `x[n, C, H, W]` and time steps `t[n]`."""

    slots: Tensor
    x: Tensor
    t: Tensor


class Buffer(Component):
    """Holds the chains `(x, t)` between training steps. Each rank has its own part.

    An option named `size` is the number of slots over all ranks; `ebmkit check` holds it against the batch size.
    """

    kind = "buffer"

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Draw:
        """`n` chains from different slots, on the training device; tensors that the caller may change."""

    @abstractmethod
    def store(self, slots: Tensor, x: Tensor) -> None:
        """Put the refined `x[n, C, H, W]` back into its `slots[n]` and move their time steps on."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as tensors and plain JSON values."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


@dataclass
class Pairs:
    """What one training step compares: images, chains and the energy that is trained.

    `x_pos` and `x_neg` are `[B, C, H, W]`, `t` is `[B]` and the same for both (step 3 of the method); `labels[B]` are
    int64, -1 where unknown. `slots` are the buffer slots that `x_neg` goes back to, None where it does not.
    """

    energy: EnergyFunction
    x_pos: Tensor
    x_neg: Tensor
    t: Tensor
    labels: Tensor | None = None
    slots: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Whatever the objective's `pairs` prepares for its own `loss`, such as noised images."""

    @cached_property
    def energies(self) -> tuple[Tensor, Tensor]:
        """`f(x_pos, t)` and `f(x_neg, t)`, each `[B]`: evaluated once, however many terms use them."""
        return self.energy(self.x_pos, self.t), self.energy(self.x_neg, self.t)


class Term(NamedTuple):
    """A part of the loss: the scalar to minimise, its weight included, and what to log of it."""

    value: Tensor
    metrics: Metrics


class Regularizer(Component):
    """Keeps the energy well-behaved: by a penalty in the loss, by the structure of the network, or by both."""

    kind = "regularizer"
    needs_double_backward: ClassVar[bool] = False
    """The penalty differentiates a gradient. For engines and compilers that must treat it apart; none does so yet."""
    changes_state_dict: ClassVar[bool] = False
    """`prepare` renames or adds parameters: a model file then loads only through the same regularizer."""

    def prepare(self, model: EnergyModel) -> None:
        """Change the network's structure in place, once, before weights are loaded."""
        return

    def penalty(self, pairs: Pairs, generator: torch.Generator) -> Term | None:
        """The weighted penalty of this batch, differentiable by the parameters; None if there is none."""
        return None

    @classmethod
    def gradient_bound(cls, options: Any) -> float | None:
        """The per-sample norm of the energy's input gradient that this keeps to, if any (reachability rule)."""
        return None


class Chains(Protocol):
    """What an objective may do with the run's buffer and sampler."""

    def draw(self, n: int) -> Draw:
        """`n` chains from the buffer."""

    def refine(self, x: Tensor, t: Tensor, energy: EnergyFunction | None = None) -> Tensor:
        """K sampler steps, parameters frozen, detached; on the trained energy unless another one is given."""


class Objective(Component):
    """What training minimises, and which positives and negatives it compares."""

    kind = "objective"

    @abstractmethod
    def pairs(
        self, energy: EnergyFunction, x_pos: Tensor, labels: Tensor | None, chains: Chains, generator: torch.Generator
    ) -> Pairs:
        """Choose what to compare with the real images `x_pos[B, C, H, W]`; runs without gradients."""

    @abstractmethod
    def loss(self, pairs: Pairs) -> Term:
        """The scalar to minimise, differentiable by the parameters, without the regularizers' penalties."""


class BufferedObjective(Objective):
    """Objectives whose negatives are the buffer's chains, refined; clean data at every `t` (eq. 10)."""

    def pairs(
        self, energy: EnergyFunction, x_pos: Tensor, labels: Tensor | None, chains: Chains, generator: torch.Generator
    ) -> Pairs:
        """Steps 1 to 3 of Algorithm 1, as corrected in `docs/method.md`."""
        drawn = chains.draw(x_pos.shape[0])
        x_neg = chains.refine(drawn.x, drawn.t)
        return Pairs(energy, x_pos, x_neg, drawn.t, labels, drawn.slots)


INTERFACES: Mapping[str, type] = {
    "energy": Energy,
    "sampler": Sampler,
    "buffer": Buffer,
    "regularizer": Regularizer,
    "schedule": Schedule,
    "objective": Objective,
}
"""The abstract class of each kind."""
