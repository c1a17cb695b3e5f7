"""What the contracts of all kinds share: how a component is found and built, and what its options must be."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, NoReturn
from unittest import SkipTest

import pydantic
import tomli_w

from ebmkit.binder import Binder
from ebmkit.errors import PluginMissing
from ebmkit.interfaces import BaseOptions, Context
from ebmkit.process_settings import kept
from ebmkit.registry import Registry, default_registry
from ebmkit.testing.globals import unchanged_globals

SHAPES = ((3, 16, 16), (1, 16, 16), (3, 32, 32), (3, 64, 64), (1, 28, 28), (1, 8, 8))
TIME_STEPS = (4, 1)


class ContractBroken(AssertionError):
    """A component breaks a rule of its kind; the message says what to mend."""


def require(holds: object, mend: str) -> None:
    """Raise `ContractBroken` with what to mend unless the rule `holds`."""
    __tracebackhide__ = True
    if not holds:
        raise ContractBroken(mend)


def skip(reason: str) -> NoReturn:
    """End a test that does not apply to this component; pytest shows it as skipped."""
    raise SkipTest(reason)


class Contract:
    """The rules for all kinds. Subclass the contract of your kind and name the component; pytest does the rest.

    Each `test_` method is one rule, its docstring the sentence that `ebmkit check-plugin` and the documentation show.
    """

    component: ClassVar[type[Any]]
    """The class to test."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Its options, as a recipe has them; those without a default are taken from their `examples` where not given."""
    image_shape: ClassVar[tuple[int, int, int] | None] = None
    """`(C, H, W)` to test with; by default the first usual one that `problems` accepts."""
    time_steps: ClassVar[int | None] = None
    """T to test with; by default 4, or 1 where `problems` refuses that."""
    registry: ClassVar[Registry | None] = None
    """Where the component is registered; by default what is installed."""

    def bound_options(self) -> Any:
        """The options as ebmkit binds them from a recipe."""
        return self._bind({**self._examples(), **self.options}, "the options of this test")

    def context(self, **changes: Any) -> Context:
        """The context to test in, with `changes`."""
        return Context(**{"image_shape": self._place()[0], "time_steps": self._place()[1], **changes})

    def build(self, **changes: Any) -> Any:
        """The component in this context."""
        with kept():
            # What a constructor changes of the process is told by one rule, and not by what follows from it.
            return self.component(self.bound_options(), self.context(**changes))

    # --- the rules ---------------------------------------------------------------------------------------------------

    def test_is_found_by_its_name(self) -> None:
        """A hook of an installed plugin returns the component, and no other one has its kind and name."""
        registry, name = self.registry or default_registry(), getattr(self.component, "name", None)
        try:
            found = registry.component(self.component.kind, str(name))
        except PluginMissing as error:
            raise ContractBroken(
                f"{error}. Return the class from the plugin's hook, name the module in "
                "[project.entry-points.ebmkit] of pyproject.toml, and install the project (pip install -e .)"
            ) from error
        require(
            found is self.component,
            f"{self.component.kind} '{name}' is {found.__module__}.{found.__qualname__}, not the class under test; "
            "give one of the two another name",
        )

    def test_importing_it_imports_no_torch(self) -> None:
        """`ebmkit check` and `list-plugins` import every plugin, and answer at once because none imports torch."""
        problem = _import_problem(self._plugin_module())
        require(not problem, problem)

    def test_has_a_docstring(self) -> None:
        """The class says in its docstring what it does; `ebmkit describe` shows it."""
        own = self.component.__doc__ or ""
        require(own.strip(), f"give {self.component.__name__} a docstring: what it does, its equation, its source")

    def test_every_option_is_described(self) -> None:
        """Every option has a description; one without a default has an example, from which tools can build it."""
        for name, field in self._fields().items():
            require(
                (field.description or "").strip(),
                f"option '{name}' has no description: write Field(..., description=\"...\")",
            )
            require(
                not field.is_required() or field.examples,
                f"option '{name}' has no default: give it one, or an example: Field(examples=[...])",
            )

    def test_options_are_strict_and_frozen(self) -> None:
        """Options refuse unknown keys and text for numbers, and never change once they are bound."""
        model, options = self.component.Options, self.bound_options()
        expected = BaseOptions.model_config
        for setting in ("extra", "frozen", "strict"):
            require(
                model.model_config.get(setting) == expected[setting],
                f"Options.model_config changes '{setting}' to {model.model_config.get(setting)!r}; leave it as "
                "BaseOptions has it, or a misspelled key of a recipe passes unseen",
            )
        for name in self._fields():
            try:
                setattr(options, name, getattr(options, name))
            except pydantic.ValidationError:
                continue
            require(False, f"option '{name}' can be changed after it was bound; options must be frozen")

    def test_options_survive_a_recipe(self) -> None:
        """Options written into a recipe (TOML) are the same when they are read again, defaults included."""
        options = self.bound_options()
        table = {key: value for key, value in options.model_dump(mode="json").items() if value is not None}
        try:
            text = tomli_w.dumps(table)
        except TypeError as error:
            raise ContractBroken(f"an option cannot be written as TOML: {error}; use numbers, text, lists") from error
        again = self._bind(table, "the options as they are written into a recipe")
        require(
            again == options,
            f"after writing and reading, options are {again!r} instead of {options!r}. Written:\n{text}",
        )

    def test_none_is_the_default_where_it_is_allowed(self) -> None:
        """An option that may be None has None as its default: TOML has no null, None is written by leaving it out."""
        options = self.bound_options()
        for name, field in self._fields().items():
            try:
                self.component.Options.model_validate({**dict(options), name: None})
            except pydantic.ValidationError:
                continue
            require(
                field.get_default(call_default_factory=True, validated_data={}) is None,
                f"option '{name}' may be None, but its default is another value, which it would become again in a "
                'recipe: TOML has no null; make None the default, or take another word for it, such as "off"',
            )

    def test_problems_are_messages(self) -> None:
        """`problems` gives a list of sentences in any context, and never raises."""
        contexts = [Context(shape, t) for shape in (*SHAPES, (1, 1, 1), (4, 7, 13)) for t in (1, 2, 1000)]
        for context in contexts:
            told = self.component.problems(self.bound_options(), context)
            require(
                isinstance(told, list) and all(isinstance(item, str) and item.strip() for item in told),
                f"problems() must return a list of sentences, [] for none, not {told!r} ({context})",
            )

    def test_is_built_without_side_effects(self) -> None:
        """Building a component changes nothing global: no random state, no setting of torch."""
        options = self.bound_options()
        with unchanged_globals(f"{self.component.__name__}.__init__"):
            self._build_from(options)

    # --- how they look at the component ------------------------------------------------------------------------------

    def _build_from(self, options: Any) -> Any:
        return self.component(options, self.context())

    def _fields(self) -> Mapping[str, Any]:
        fields: Mapping[str, Any] = self.component.Options.model_fields
        return fields

    def _examples(self) -> dict[str, Any]:
        return {
            name: field.examples[0] for name, field in self._fields().items() if field.is_required() and field.examples
        }

    def _bind(self, values: Mapping[str, Any], what: str) -> Any:
        binder = Binder(self.registry or default_registry())
        options = binder.options(self.component.Options, values, "options")
        if options is None:
            told = "; ".join(f"{problem.path} {problem.message}" for problem in binder.problems)
            raise ContractBroken(f"{what} do not bind: {told}; set `options` on the contract's subclass")
        return options

    def _place(self) -> tuple[tuple[int, int, int], int]:
        shapes: Sequence[tuple[int, int, int]] = (self.image_shape,) if self.image_shape else SHAPES
        times = (self.time_steps,) if self.time_steps else TIME_STEPS
        options, first = self.bound_options(), ""
        for shape in shapes:
            for t in times:
                told = self._problems(options, Context(shape, t))
                if not told:
                    return shape, t
                first = first or told[0]
        raise ContractBroken(
            f"problems() refuses every context that was tried: {first}; set image_shape, time_steps or options on the "
            "contract's subclass (--image-size, --time-steps, --set) to what the component is for"
        )

    def _problems(self, options: Any, context: Context) -> list[str]:
        return list(self.component.problems(options, context)) if hasattr(self.component, "problems") else []

    def _plugin_module(self) -> str:
        for plugin in (self.registry or default_registry()).loaded:
            if any(item.component is self.component for item in plugin.components):
                return plugin.module.__name__
        return str(self.component.__module__)


@cache
def _import_problem(module: str) -> str:
    """What importing `module` in a new Python does wrong, or an empty string."""
    # Hooks import the classes, so they are called, too.
    code = f"""
import sys, {module}
from ebmkit.hookspecs import HOOK_OF_KIND
for hook in HOOK_OF_KIND.values():
    getattr({module}, hook, list)()
sys.exit(3 * any(name in sys.modules for name in ('torch', 'torchvision', 'timm')))
"""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 3:
        return (
            f"importing {module} imports torch, which makes every `ebmkit check` slow: import torch within methods or "
            "in modules that only methods import, and annotate tensors under `if TYPE_CHECKING:`"
        )
    return "" if done.returncode == 0 else f"importing {module} fails in a new Python: {done.stderr.strip()[-400:]}"


def rules(contract: type[Contract]) -> dict[str, str]:
    """The rules of a contract: test names and their sentences, those of all kinds first."""
    names = [name for base in reversed(contract.__mro__) for name in vars(base) if name.startswith("test_")]
    members = {name: getattr(contract, name) for name in names}
    return {name: " ".join((inspect.getdoc(rule) or "").split()) for name, rule in members.items() if rule is not None}
