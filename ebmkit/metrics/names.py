"""Which metrics there are, and what each of them is computed from. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ebmkit.errors import BadInput
from ebmkit.registry import suggest

PIXELS = "pixel_frechet_distance"
PIXEL_COUNT = 512
NETWORK_COUNT = 50_000
"""Samples by default: the literature's number where a network's features are compared."""

PIXEL_FEATURES = "pixels"
OWN_FEATURES = "extractor"
INCEPTION, INCEPTION_LOGITS, VGG16 = "inception", "inception_logits", "vgg16"
"""The features that metrics are computed from."""

LITERATURE = {
    "fid": ("frechet_distance", INCEPTION),
    "inception_score": ("inception_score", INCEPTION_LOGITS),
    "kid": ("kid", INCEPTION),
    "precision": ("precision", VGG16),
    "recall": ("recall", VGG16),
}
"""The metrics whose network is part of their definition: what is computed, and from which features."""

STATISTICS = ("pixel_std_ratio", "neighbour_difference_ratio", "spectrum_distance", "nearest_image_ratio")
"""The plain statistics of pixels, by the names of their functions in `ebmkit.metrics.statistics`."""

WITH_EXTRACTOR = ("frechet_distance", "kid", "precision", "recall")
"""The metrics of any other network, which is then part of their name."""


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation: its `name`, `what` is computed, and the `features` that it is computed from."""

    name: str
    what: str
    features: str


def choose(names: Iterable[str], extractor: str | None = None) -> tuple[Metric, ...]:
    """The metrics of these names, each once; without names the pixels' distance, or those of the `extractor`'s label.

    Raises `BadInput` for an unknown name, and for one that does not go with an extractor, or only with one.
    """
    chosen = [name.strip() for name in names]
    if not chosen:
        chosen = [PIXELS] if extractor is None else ["frechet_distance", "kid"]
    return tuple(_metric(name, extractor) for name in dict.fromkeys(chosen))


def _metric(name: str, extractor: str | None) -> Metric:
    if name == PIXELS:
        return Metric(name, "frechet_distance", PIXEL_FEATURES)
    if name in STATISTICS:
        return Metric(name, name, PIXEL_FEATURES)
    if extractor is not None and name in WITH_EXTRACTOR:
        return Metric(f"{name}[{extractor}]", name, OWN_FEATURES)
    if extractor is not None and name in LITERATURE:
        instead = "; ask for frechet_distance" if name == "fid" else ""
        raise BadInput(f"{name} is by definition that of Inception, not of {extractor}: leave out --extractor{instead}")
    if name in LITERATURE:
        return Metric(name, *LITERATURE[name])
    if name in WITH_EXTRACTOR:
        raise BadInput(f"{name} is that of some network: name one with --extractor, or ask for fid or {PIXELS}")
    known = [PIXELS, *(LITERATURE if extractor is None else WITH_EXTRACTOR), *STATISTICS]
    hint = suggest(name, known) or f"; there are {', '.join(known)}"
    raise BadInput(f"unknown metric '{name}'{hint}")
