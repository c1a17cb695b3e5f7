"""Images in WebDataset shards: reading them (`open_images`, `all_images`) and making them (`make_shards`).

Importing this package does not import torch; the names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ebmkit.data.images import all_images, open_images
    from ebmkit.data.making import make_shards
    from ebmkit.data.manifest import Manifest
    from ebmkit.data.patterns import expand
    from ebmkit.data.source import Batch, ImageSource

_HOMES = {
    "Batch": "ebmkit.data.source",
    "ImageSource": "ebmkit.data.source",
    "Manifest": "ebmkit.data.manifest",
    "all_images": "ebmkit.data.images",
    "expand": "ebmkit.data.patterns",
    "make_shards": "ebmkit.data.making",
    "open_images": "ebmkit.data.images",
}

__all__ = ["Batch", "ImageSource", "Manifest", "all_images", "expand", "make_shards", "open_images"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ebmkit.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
