"""The names of a plugin project, all from one word, and whether they are free."""

from __future__ import annotations

import builtins
import keyword
import re
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from importlib.util import find_spec

import ebmkit
from ebmkit.errors import BadInput
from ebmkit.registry import default_registry

PREFIX = re.compile(r"ebmkit[-_]")
# Stricter than a component's name may be: a distribution's name has no two separators in a row, and none at its end.
NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*\Z")
LONGEST = 32
"""Characters; with more, generated lines would be too long."""

IMPORTED = frozenset(
    {"Any", "ClassVar", "EnergyHead", "Field", "GeneratorNoise", "Mapping", "Network", "Options", "Path"}
    | {"ResidualBlock", "Sequence", "Tensor", "TimeEmbedding"}
)
"""Classes that the templates import or define, beside those of ebmkit itself and its contracts."""


@dataclass(frozen=True)
class Names:
    """`component` is the `use` of recipes, `plugin` the name of the entry point; the others are what they say."""

    component: str
    plugin: str
    distribution: str
    module: str
    class_name: str


def names_of(name: str) -> Names:
    """The names that follow from `r1`, `my-sampler`, `my_sampler` or `ebmkit-my-sampler`; raises `BadInput`."""
    bare = PREFIX.sub("", name, count=1)
    if not NAME.match(bare):
        raise BadInput(
            f"'{name}' cannot be a plugin's name: it begins with a lower-case letter, and has lower-case letters and "
            "digits after it, with single hyphens or underscores between them; for example r1 or my-sampler"
        )
    if len(bare) > LONGEST:
        raise BadInput(f"'{name}' is too long for a plugin's name: at most {LONGEST} characters, not {len(bare)}")
    component, plugin = bare.replace("-", "_"), bare.replace("_", "-")
    class_name = "".join(part.capitalize() for part in component.split("_"))
    if _is_known(class_name):
        raise BadInput(
            f"'{name}' would name the class {class_name}, which Python or ebmkit already has; "
            f"choose another name, for example my-{plugin}"
        )
    return Names(component, plugin, f"ebmkit-{plugin}", f"ebmkit_{component}", class_name)


def require_free(kind: str, names: Names) -> None:
    """Raise `BadInput` where an installed plugin has this component, or something installed has this module."""
    for item in default_registry():
        if (item.kind, item.name) == (kind, names.component):
            raise BadInput(
                f"{kind} '{names.component}' is already there, from {item.source}; "
                f"choose another name, for example my-{names.plugin}"
            )
    spec = find_spec(names.module)
    if spec is not None:
        owners = " and ".join(sorted(set(packages_distributions().get(names.module, ()))))
        source = owners or spec.origin or ", ".join(spec.submodule_search_locations or ()) or "this Python"
        raise BadInput(
            f"the module {names.module} is already there, from {source}; "
            f"choose another name, for example my-{names.plugin}"
        )


def _is_known(class_name: str) -> bool:
    return (
        keyword.iskeyword(class_name)
        or hasattr(builtins, class_name)
        or class_name in ebmkit.__all__
        or class_name in IMPORTED
        or class_name.endswith("Contract")
    )
