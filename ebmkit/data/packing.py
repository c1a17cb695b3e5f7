"""Telling packed files from plain ones by their first bytes. Torch-free."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from typing import Any

_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}

UNPACKING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a packed file that is cut short or broken raises."""


def unpacker(head: bytes) -> Callable[..., Any] | None:
    """Opens, given a path or stream and "rb", a file that begins with these two bytes; None for a plain file."""
    return _OPENERS.get(head)
