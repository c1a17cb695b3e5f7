"""A server on this machine that speaks the calls which huggingface_hub makes to load one file and to push a folder.

They were found by logging what huggingface_hub 2.4 asks for, its own storage protocol (xet) switched off.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

TOKEN = "hf_verysecrettoken"


class Request(NamedTuple):
    method: str
    path: str
    token: str | None


@dataclass
class Hub:
    """Repositories as revisions of files; what was asked for; and what to refuse."""

    url: str = ""
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    refuse: int | None = None
    """A status for all that needs a token, whose message repeats the token."""

    def asked(self, pattern: str) -> list[Request]:
        return [request for request in self.requests if re.search(pattern, f"{request.method} {request.path}")]


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        hub = self.server.hub
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path)
        token = self.headers.get("Authorization")
        hub.requests.append(Request(self.command, path, token))
        if hub.refuse is not None and not path.startswith("/api/agent"):
            self._answer(hub.refuse, b"{}", {"X-Error-Message": f"refused: {token}"})
        elif match := re.match(r"/([\w.-]+/[\w.-]+)/resolve/(.+)/([\w.-]+)\Z", path):
            self._resolve(*match.groups())
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := re.match(r"/api/models/([\w.-]+/[\w.-]+)/branch/(.+)\Z", path):
            self.server.hub.repos[match[1]].setdefault(match[2], {})
            self._json({})
        elif "/preupload/" in path:
            large = [(file, file["path"].endswith((".safetensors", ".png"))) for file in json.loads(body)["files"]]
            found = [{"path": f["path"], "uploadMode": "lfs" if big else "regular"} for f, big in large]
            self._json({"files": [{**file, "shouldIgnore": False} for file in found]})
        elif path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif path.startswith("/lfs/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/lfs/")
            hub.blobs[path.removeprefix("/lfs/")] = body
            self._answer(200)
        elif path == "/verify":
            self._json({})
        elif match := re.match(r"/api/models/([\w.-]+/[\w.-]+)/commit/(.+)\Z", path):
            self._commit(match[1], match[2], body)
        else:
            self._answer(404, b"{}")

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        revisions = self.server.hub.repos.get(repo)
        hidden = repo in self.server.hub.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if revisions is None or hidden:
            self._answer(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif revision not in revisions:
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"})
        elif name not in revisions[revision]:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"})
        else:
            files = revisions[revision]
            tag = f'"{hashlib.sha256(files[name]).hexdigest()}"'
            self._answer(200, files[name], {"ETag": tag, "X-Repo-Commit": commit_of(files)})

    def _create(self, wanted: dict[str, Any]) -> None:
        hub, repo = self.server.hub, f"{wanted['organization']}/{wanted['name']}"
        if repo in hub.repos:
            self._answer(409, json.dumps({"error": "exists", "url": f"{hub.url}/{repo}"}).encode())
            return
        hub.repos[repo] = {"main": {}}
        if wanted.get("visibility") == "private" or wanted.get("private"):
            hub.private.add(repo)
        self._json({"url": f"{hub.url}/{repo}", "name": repo, "id": "1"})

    def _batch(self, wanted: dict[str, Any]) -> None:
        url = self.server.hub.url
        objects = [
            {
                **thing,
                "authenticated": True,
                "actions": {"upload": {"href": f"{url}/lfs/{thing['oid']}"}, "verify": {"href": f"{url}/verify"}},
            }
            for thing in wanted["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")

    def _commit(self, repo: str, revision: str, body: bytes) -> None:
        hub = self.server.hub
        files = dict(hub.repos[repo][revision])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.blobs[value["oid"]]
        commit = commit_of(files)
        hub.repos[repo][revision] = hub.repos[repo][commit] = files
        address = f"{hub.url}/{repo}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": address, "hookOutput": ""})

    def _json(self, value: Any, kind: str = "application/json") -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": kind})

    def _answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


@contextlib.contextmanager
def serving_hub() -> Iterator[Hub]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.hub = Hub(url=f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.hub
        finally:
            server.shutdown()
            thread.join()
