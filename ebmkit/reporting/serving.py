"""A report over HTTP on this machine, made anew whenever its runs have gone on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ebmkit.errors import BadInput, EbmkitError
from ebmkit.reporting.page import render
from ebmkit.reporting.reading import PLOTS, read_runs
from ebmkit.run_folder import RunFolder

ADDRESS = "127.0.0.1"
REFRESH = 2000
"""Milliseconds after which an open page asks again."""


class Live:
    """The newest report of some runs, made when somebody asks and something has changed."""

    def __init__(self, runs: Sequence[str | Path], max_bytes: int) -> None:
        self.runs, self.max_bytes = [Path(run) for run in runs], max_bytes
        self._lock = threading.Lock()
        self._seen: object = None
        self._page, self._etag = b"", ""

    def page(self) -> tuple[bytes, str]:
        """The page and its ETag; raises `EbmkitError` and `OSError` where the runs cannot be read."""
        with self._lock:
            # Looked at before they are read: what is written meanwhile is found the next time.
            seen = [_state(path) for run in self.runs for path in _watched(run)]
            if seen != self._seen:
                page = render(read_runs(self.runs), self.max_bytes, refresh=REFRESH)
                self._page = page.html.encode()
                self._etag = f'"{hashlib.sha256(self._page).hexdigest()[:32]}"'
                self._seen = seen
            return self._page, self._etag


def _watched(run: Path) -> list[Path]:
    folder = RunFolder(run)
    paths = [folder.recipe, folder.metrics, folder.samples, run / PLOTS, folder.evaluations, folder.model]
    return [*paths, *(file for folder in paths if folder.is_dir() for file in sorted(folder.iterdir()))]


def _state(path: Path) -> tuple[str, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_size, found.st_mtime_ns


class _Handler(BaseHTTPRequestHandler):
    """Answers `/` with the report, and nothing else with anything."""

    server: Server
    server_version, sys_version = "ebmkit", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """The report, or 304 where the page has it already."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """What GET would say of the report."""
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        # A foreign site whose name was made to point to this machine would send its own name.
        if self.headers.get("Host") not in self.server.hosts:
            return self._send(HTTPStatus.FORBIDDEN, b"this server answers to its own address only\n", with_body)
        if self.path.partition("?")[0] != "/":
            return self._send(HTTPStatus.NOT_FOUND, b"only the report is here, at /\n", with_body)
        try:
            page, etag = self.server.live.page()
        except (EbmkitError, OSError) as error:
            return self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode(), with_body)
        if self.headers.get("If-None-Match") == etag:
            return self._send(HTTPStatus.NOT_MODIFIED, b"", with_body, etag)
        return self._send(HTTPStatus.OK, page, with_body, etag, "text/html")

    def _send(
        self, status: HTTPStatus, body: bytes, with_body: bool, etag: str | None = None, kind: str = "text/plain"
    ) -> None:
        self.send_response(status)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        for name, value in {
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():
            self.send_header(name, value)
        if etag is not None:
            self.send_header("ETag", etag)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal belongs to the person who watches."""


class Server(ThreadingHTTPServer):
    """Serves one report on 127.0.0.1; `url` is where. Raises `BadInput` where the port is taken; 0 takes a free one."""

    daemon_threads = True

    def __init__(self, live: Live, port: int) -> None:
        self.live = live
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise BadInput(f"port {port}: {error.strerror}; choose another by --port, 0 takes a free one") from error
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}

    @property
    def url(self) -> str:
        """The address to open."""
        return f"http://{ADDRESS}:{self.server_port}/"
