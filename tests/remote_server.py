"""A real HTTP server for shards, on this machine, that fails where a test wants it to."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """What happens to one request: an error `status`, or a body that stops after `cut` bytes."""

    status: int = 0
    headers: dict[str, str] = {}
    cut: int | None = None
    pause: float = 0.0
    """Seconds of silence at the cut, before the connection ends."""
    piece_delay: float = 0.0
    """Seconds before every piece of `PIECE` bytes."""


class Request(NamedTuple):
    name: str
    range: str | None
    at: float


PIECE = 4096


def _tag(data: bytes) -> str:
    return f'"{zlib.crc32(data):x}"'


@dataclass
class ShardServer:
    """Serves a folder; each request for a name takes the first of that name's faults, those under "*" hold for all."""

    folder: Path
    ranges: bool = True
    framing: str = "length"
    """How the end of a body is told: "length", "chunked", or "close", which a cut looks like, too."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)
    url: str = ""

    def take(self, name: str, wanted: str | None) -> Fault:
        with self.lock:
            self.requests.append(Request(name, wanted, time.monotonic()))
            waiting = self.faults.get(name)
            return waiting.pop(0) if waiting else self.faults.get("*", [Fault()])[0]

    def count(self, name: str) -> int:
        with self.lock:
            return sum(request.name == name for request in self.requests)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        plan = self.server.plan
        name = self.path.lstrip("/")
        wanted = self.headers.get("Range")
        fault = plan.take(name, wanted)
        path = plan.folder / name
        if fault.status or not path.is_file():
            self.send_response(fault.status or 404)
            for key, value in fault.headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        if self.headers.get("If-Range", _tag(data)) != _tag(data) or not plan.ranges:
            wanted = None
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self._head(data, begin, fault)
        with contextlib.suppress(ConnectionError):
            self._body(data[begin : fault.cut], fault)

    def _head(self, data: bytes, begin: int, fault: Fault) -> None:
        framing = self.server.plan.framing
        self.protocol_version = "HTTP/1.1" if framing == "chunked" else "HTTP/1.0"
        self.send_response(206 if begin else 200)
        self.send_header("ETag", _tag(data))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        if framing == "length":
            self.send_header("Content-Length", str(len(data) - begin))
        elif framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()

    def _body(self, data: bytes, fault: Fault) -> None:
        chunked = self.server.plan.framing == "chunked"
        for begin in range(0, len(data), PIECE):
            time.sleep(fault.piece_delay)
            piece = data[begin : begin + PIECE]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        time.sleep(fault.pause)
        if fault.cut is None and chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    plan: ShardServer

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what some tests are about."""


@contextlib.contextmanager
def serving(folder: Path, port: int = 0, **plan: Any) -> Iterator[ShardServer]:
    with _Server(("127.0.0.1", port), _Handler) as server:
        server.plan = ShardServer(folder, **plan)
        server.plan.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.plan
        finally:
            server.shutdown()
            thread.join()
