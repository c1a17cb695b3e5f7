"""What turns images into the features that are compared: pixels, torch-fidelity's networks, a plugin's extractor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmkit.binder import Binder
from ebmkit.blame import blamed_on, wrong
from ebmkit.distributed.world import World
from ebmkit.errors import BadInput, RecipeError
from ebmkit.interfaces import Context, FeatureExtractor
from ebmkit.metrics import fidelity, weights
from ebmkit.metrics.names import INCEPTION, INCEPTION_LOGITS, OWN_FEATURES, PIXEL_FEATURES, VGG16, Metric
from ebmkit.precision import tf32
from ebmkit.recipe import Part
from ebmkit.registry import default_registry
from ebmkit.sampling import to_uint8

Features = dict[str, Tensor]
"""Features `[N, D]`, float32 on the CPU, by the names that metrics ask for."""

LAYERS = {
    INCEPTION: ("inception-v3-compat", {INCEPTION: "2048", INCEPTION_LOGITS: "logits_unbiased"}),
    VGG16: ("vgg16", {VGG16: "fc2_relu"}),
}
"""torch-fidelity's name of each network, and of the layers that are taken as features."""


@dataclass(frozen=True)
class Network:
    """Images `[B, C, H, W]` around [-1, 1] to `Features`.

    `identity` stands for all that the features depend on beside the images, None where they are not worth keeping;
    `label` is its name for people, and `versions` what to note of it.
    """

    names: tuple[str, ...]
    compute: Callable[[Tensor], Features]
    identity: str | None = None
    label: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


def bind_extractor(name: str, options: Mapping[str, Any] | None = None) -> Part:
    """The feature extractor of this name with these options; raises `PluginMissing` and `RecipeError`."""
    component = default_registry().component("feature_extractor", name)
    binder = Binder(default_registry())
    bound = binder.options(component.Options, options or {}, "extractor", component)
    if bound is None:
        raise RecipeError(f"feature_extractor '{name}'", binder.problems)
    return Part("feature_extractor", component, bound)


def label_of(part: Part) -> str:
    """The extractor's name, with the options that are not the defaults: other options, other numbers."""
    defaults = {name: item.default for name, item in type(part.options).model_fields.items()}
    changed = [f"{name}={value}" for name, value in part.options if value != defaults[name]]
    return " ".join([part.name, *changed])


def open_networks(
    metrics: Sequence[Metric], extractor: Part | None, given: Sequence[Path], context: Context, world: World
) -> list[Network]:
    """The networks that these metrics need, loaded; fetched first where they are not here.

    Raises `BadInput` for what is missing, and says how to get it.
    """
    wanted = {metric.features for metric in metrics}
    names = [name for name, (_, layers) in LAYERS.items() if wanted & layers.keys()]
    found = [pixels()] if PIXEL_FEATURES in wanted else []
    if extractor is not None and OWN_FEATURES in wanted:
        found.append(own(extractor, context))
    # Once for all processes of a machine: the others find what the first one fetched.
    paths = weights.find(names, given) if world.first else {}
    world.barrier()
    paths = paths or weights.find(names, given)
    return found + [literature(name, paths[name], context.device) for name in names]


def pixels() -> Network:
    """The pixels themselves, as they would be written to a file: within the range of images."""
    return Network((PIXEL_FEATURES,), lambda images: {PIXEL_FEATURES: images.clamp(-1, 1).flatten(1)})


def literature(name: str, path: Path, device: str) -> Network:
    """One of torch-fidelity's networks."""
    title, layers = LAYERS[name]
    network = fidelity.network(title, list(layers.values()), str(path), device)

    def compute(images: Tensor) -> Features:
        with torch.no_grad(), tf32(device, False):
            found = network(as_rgb(images).to(device))
        return {key: value.float().cpu() for key, value in zip(layers, found, strict=True)}

    published, version = weights.FILES[name].name, fidelity.fidelity_version()
    return Network(tuple(layers), compute, f"{title} {published} torch-fidelity {version}", title, {title: published})


def own(part: Part, context: Context) -> Network:
    """A plugin's feature extractor, what it gives held against its interface."""
    with blamed_on(part.component, "problems()"):
        problems = part.component.problems(part.options, context)
    if problems:
        raise BadInput("; ".join(f"feature_extractor '{part.name}': {problem}" for problem in problems))
    with blamed_on(part.component, "its constructor"):
        extractor: FeatureExtractor = part.build(context)
    with blamed_on(extractor, "weights"):
        names = str(extractor.weights)

    def compute(images: Tensor) -> Features:
        with torch.no_grad(), tf32(context.device, False), blamed_on(extractor, "features()"):
            found: object = extractor.features(as_rgb(images))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
            told = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise wrong(extractor, f"features() must return [{len(images)}, D] for {len(images)} images, not {told}")
        return {OWN_FEATURES: found.detach().float().cpu()}

    registered = default_registry().find("feature_extractor", part.name)
    identity = f"{registered.source} {label_of(part)} {part.options!r} {names}"
    versions = {registered.distribution: registered.version, label_of(part): names}
    return Network((OWN_FEATURES,), compute, identity, label_of(part), versions)


def as_rgb(images: Tensor) -> Tensor:
    """Images around [-1, 1] as uint8 with three channels, as they would be written to a file; greys are repeated."""
    written = to_uint8(images)
    return written.expand(-1, 3, -1, -1).contiguous() if written.shape[1] == 1 else written
