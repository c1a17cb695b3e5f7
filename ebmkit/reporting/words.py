"""How a report writes numbers, times and the names of metrics."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from ebmkit.console import LABELS

NOTHING = "\u2013"
"""For what is not known."""
METRICS = {
    "pixel_frechet_distance": "pixel Fréchet distance ↓",
    "fid": "FID ↓",
    "inception_score": "Inception score ↑",
    "kid": "KID ↓",
    "precision": "precision ↑",
    "recall": "recall ↑",
    "pixel_std_ratio": "pixel std ratio → 1",
    "neighbour_difference_ratio": "neighbour difference ratio → 1",
    "spectrum_distance": "spectrum distance (dB) ↓",
    "nearest_image_ratio": "nearest image ratio → 1",
}
"""Evaluations, and which way is better."""


def metric(name: str) -> str:
    """The heading of an evaluation's metric: `fid` is 'FID ↓'."""
    plain, bracket, network = name.partition("[")
    if bracket and plain in ("frechet_distance", "kid"):
        return f"{'Fréchet distance' if plain == 'frechet_distance' else 'KID'} by {network.removesuffix(']')} ↓"
    return METRICS.get(name, name)


def curve(name: str) -> str:
    """The title of a curve: `gradient_norm` is 'Gradient norm', and a plugin's `wgan_lp/penalty` stays as it is."""
    label = LABELS.get(name, name if "/" in name else name.replace("_", " "))
    return label if "/" in name or label == "images/s" else label[:1].upper() + label[1:]


def whole(value: float | None) -> str:
    """1234567 as '1,234,567'."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def number(value: Any) -> str:
    """Four digits of a number; text as it is, shortened."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING if value is None else str(value)[:100]
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (value == round(value) and abs(value) < 1e15):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def large(value: int | None) -> str:
    """A count of any size: '57,600' or '1.53e+13'."""
    if value is None:
        return NOTHING
    return f"{value:,}" if value < 10**9 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """'45 s', '12 min 5 s', '3 h 20 min', '2 d 4 h'."""
    if seconds is None or not (0 <= seconds < 1e12):
        return NOTHING
    left = round(seconds)
    for size, unit, smaller, word in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // smaller
            return f"{left // size} {unit} {rest} {word}" if rest else f"{left // size} {unit}"
    return f"{left} s"


def minute(time: Any) -> str:
    """An ISO-8601 time as '2026-11-24 18:40 UTC'; what is none, as it is."""
    try:
        return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (TypeError, ValueError, OverflowError):
        return number(time)


def megabytes(count: int) -> str:
    """'0.4 MB'."""
    return f"{count / 1e6:.1f} MB"
