"""`ebmkit report --watch`: the report over HTTP, on this machine only, as long as it is asked for by its own name."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebmkit.errors import BadInput
from ebmkit.reporting.serving import Live, Server
from report_runs import write_lines, write_picture, write_run
from run_helpers import environment


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", [{"step": 1, "loss": 2.0}], [1])


@pytest.fixture
def server(run: Path) -> Iterator[Server]:
    with Server(Live([run], 10**7), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: Server, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_the_report_is_served_and_asks_for_nothing_but_itself(server: Server) -> None:
    status, headers, body = ask(server)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<title>Run run</title>" in body
    assert "connect-src 'self'" in body
    assert '<body data-refresh="2000">' in body
    status, headers, body = ask(server, method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 10_000


def test_it_is_made_anew_when_the_run_has_gone_on_and_only_then(server: Server, run: Path) -> None:
    tag = ask(server)[1]["ETag"]
    status, _, body = ask(server, If_None_Match=tag)
    assert (status, body) == (304, "")
    write_lines(run / "metrics.jsonl", [{"step": step, "loss": 1.0} for step in range(5)])
    status, headers, body = ask(server, If_None_Match=tag)
    assert status == 200
    assert "<dd>4 of 6</dd>" in body
    tag = headers["ETag"]
    write_picture(run / "samples" / "step-000000004.png", 4)
    status, _, body = ask(server, If_None_Match=tag)
    assert status == 200
    assert "sample grids: 2 of 2" in body


@pytest.mark.parametrize("path", ["/recipe.toml", "/../recipe.toml", "/index.html", "/favicon.ico", "/samples/"])
def test_nothing_else_is_served(server: Server, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_name_for_this_machine_is_refused(server: Server, host: str) -> None:
    status, _, body = ask(server, Host=host.format(port=server.server_port))
    assert status == 403
    assert "loss" not in body
    assert ask(server, Host=f"localhost:{server.server_port}")[0] == 200


def test_nothing_can_be_sent(server: Server) -> None:
    assert ask(server, method="POST")[0] == ask(server, method="PUT")[0] == 501


def test_only_this_machine_can_ask(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_run_that_is_gone_is_said(server: Server, run: Path) -> None:
    (run / "recipe.toml").unlink()
    status, _, body = ask(server)
    assert status == 503
    assert "no run here" in body


def test_a_port_that_is_taken_is_said(run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="in use; choose another by --port"):
            Server(Live([run], 10**7), taken.getsockname()[1])


def test_from_the_command_line_until_ctrl_c(run: Path) -> None:
    command = [sys.executable, "-u", "-m", "ebmkit", "report", str(run), "--watch", "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(), cwd=run.parent
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends\)\n", line)
        assert match, line
        connection = http.client.HTTPConnection("127.0.0.1", int(match[1]), timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
    assert [path.name for path in run.parent.iterdir()] == ["run"]
