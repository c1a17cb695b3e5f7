"""Features of EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Sequence

from ebmkit import FeatureExtractor, hookimpl

PLUGIN_API = 1


@hookimpl
def ebmkit_feature_extractors() -> Sequence[type[FeatureExtractor]]:
    """The classes of this plugin."""
    from ebmkit_efficientnet_lite.extractor import EfficientNetLite0

    return [EfficientNetLite0]
