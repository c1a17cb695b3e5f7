"""One HTTP request for a shard or for the rest of it."""

from __future__ import annotations

import contextlib
import re
import ssl
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage, IncompleteRead, InvalidURL
from typing import Any

from ebmkit.data.remote.access import CHANGED, Lasting, Passing

PASSING = (408, 425, 429)
"""Refusals that may pass, besides every 5xx."""
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)\Z")


class HttpAttempt:
    """A response that is being read. `tag` names the version of the shard for a later request."""

    def __init__(self, url: str, begin: int, timeout: float, tag: str | None = None) -> None:
        self._timeout = timeout
        self._response = _request(url, begin, timeout, tag)
        headers: HTTPMessage = self._response.headers
        self.begin, self.length = self._place(headers, begin)
        self._position = self.begin
        self.vouched = self.length is not None or bool(self._response.chunked)
        strong = headers.get("ETag", "")
        # A weak ETag does not promise the same bytes.
        self.tag = headers.get("Last-Modified") if not strong or strong.startswith("W/") else strong

    def _place(self, headers: HTTPMessage, begin: int) -> tuple[int, int | None]:
        size = int(text) if (text := headers.get("Content-Length", "")).isdecimal() else None
        if self._response.status != 206:
            return 0, size
        found = _RANGE.match(headers.get("Content-Range", ""))
        if not found or int(found[1]) != begin:
            self.close()
            raise Passing("the server sent another part of the shard than it was asked for")
        if found[2] != "*":
            return begin, int(found[2])
        return begin, None if size is None else begin + size

    def read(self, size: int) -> bytes:
        """What has arrived, at most `size` bytes; `Passing` where the connection ends early or falls silent."""
        try:
            data: bytes = self._response.read1(size)
        except (OSError, HTTPException) as error:
            reason = self._early() if isinstance(error, IncompleteRead) else _text(error, self._timeout)
            raise Passing(reason) from error
        self._position += len(data)
        if not data and self.length is not None and self._position < self.length:
            raise Passing(self._early())
        return data

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._response.close()

    def _early(self) -> str:
        of = "" if self.length is None else f" of {self.length:,}"
        return f"the connection ended after {self._position:,}{of} bytes"


def _request(url: str, begin: int, timeout: float, tag: str | None) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "ebmkit"})
    if begin:
        request.add_header("Range", f"bytes={begin}-")
        if tag:
            # Another version of the shard then comes whole, and its other bytes are noticed.
            request.add_header("If-Range", tag)
    try:
        return _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"HTTP {error.code} {error.reason}".strip()
        if error.code == 416:
            raise Lasting(f"it has become shorter while it was read; {CHANGED}") from error
        if error.code in PASSING or error.code >= 500:
            raise Passing(reason, _wait(error.headers.get("Retry-After"))) from error
        raise Lasting(f"{reason}; check its name in data.shards, and that you may read it") from error
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = _text(cause, timeout)
        if isinstance(cause, ssl.SSLCertVerificationError | InvalidURL | ValueError | str):
            raise Lasting(f"{reason}; check its name in data.shards") from error
        raise Passing(reason) from error


def _opener() -> urllib.request.OpenerDirector:
    """Opens http(s) and nothing else: a redirection must not lead to other kinds of URLs."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _wait(header: str | None) -> float:
    """Seconds, of either form that Retry-After has; 0 for anything else."""
    if not header:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


def _text(error: object, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no byte came for {timeout:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split("\n")[0] or type(error).__name__
