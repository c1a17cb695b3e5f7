"""The names of the kinds of component: apart from their interfaces, so that `ebmkit --help` needs no pydantic."""

from __future__ import annotations

KINDS = ("energy", "sampler", "buffer", "regularizer", "schedule", "objective", "tracker", "feature_extractor")
"""The kinds of component, in the order in which commands list them."""
