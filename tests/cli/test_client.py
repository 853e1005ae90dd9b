"""Finding the server and the key, and what a person reads when that fails."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cli.client import ApiClient, ApiProblem, ServerUnreachable
from cli.errors import CliError
from tests.cli.conftest import Ended


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address that nothing listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def other_server() -> Iterator[Callable[..., str]]:
    """`other_server(status, headers, body)`: a web server that is not Fonoteca's, or a proxy before it."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(status: int, headers: dict[str, str], body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def write_stack(home: Path, **content: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "stack.json").write_text(json.dumps(content))


@pytest.mark.usefixtures("no_stack")
def test_wrong_address(
    fonoteca: Callable[..., Ended], dead_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FONOTECA_API_KEY", "fono_0_0")
    ended = fonoteca("status", "--server", dead_url)
    assert ended.code == 1
    assert dead_url in ended.err
    assert "connection refused" in ended.err
    assert "fonoteca up" in ended.err
    assert "FONOTECA_SERVER" in ended.err
    assert "write it as http://" in fonoteca("status", "--server", "localhost:8000").err


@pytest.mark.usefixtures("no_stack")
def test_the_stack_gives_address_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FONOTECA_HOME", str(tmp_path))
    write_stack(tmp_path, api_url="http://127.0.0.1:1", api_key="fono_stack")
    with ApiClient.connect() as client:
        assert client.server == "http://127.0.0.1:1"
        assert client._http.headers["Authorization"] == "Bearer fono_stack"


@pytest.mark.usefixtures("no_stack")
def test_the_stacks_key_goes_to_the_stack_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FONOTECA_HOME", str(tmp_path))
    write_stack(tmp_path, api_url="http://127.0.0.1:1", api_key="fono_stack")
    with pytest.raises(CliError, match="no API key for http://elsewhere"):
        ApiClient.connect("http://elsewhere")


def test_a_proxys_error_page_is_not_the_servers_word(other_server: Callable[..., str]) -> None:
    url = other_server(502, {"Content-Type": "text/html"}, b"<h1>Bad Gateway</h1>")
    with (
        ApiClient(url, "key") as client,
        pytest.raises(ApiProblem, match="answered 502 Bad Gateway") as caught,
    ):
        client.batch("x")
    assert caught.value.is_transient


def test_a_server_that_is_not_fonotecas(other_server: Callable[..., str]) -> None:
    url = other_server(200, {"Content-Type": "text/html"}, b"<h1>It works!</h1>")
    with ApiClient(url, "key") as client, pytest.raises(CliError, match="not answer like a Fonoteca server"):
        client.batch("x")
    moved = other_server(301, {"Location": "https://real.example/"}, b"")
    with ApiClient(moved, "key") as client, pytest.raises(CliError, match=r"real\.example"):
        client.batch("x")


def test_problem_details_become_the_message(other_server: Callable[..., str]) -> None:
    problem = {
        "detail": "what, why, what to do",
        "code": "some_code",
        "errors": [{"pointer": "/x", "detail": "y"}],
    }
    url = other_server(422, {"Content-Type": "application/problem+json"}, json.dumps(problem).encode())
    with ApiClient(url, "key") as client, pytest.raises(ApiProblem) as caught:
        client.batch("x")
    assert caught.value.message == "what, why, what to do\n  /x: y"
    assert (caught.value.code, caught.value.status) == ("some_code", 422)


def test_a_netrc_does_not_replace_the_key(
    other_server: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    url = other_server(200, {"Content-Type": "application/json"}, b"{}")
    with ApiClient(url, "key") as client:
        assert client.send("GET", "/").request.headers["Authorization"] == "Bearer key"


@pytest.mark.usefixtures("no_stack")
def test_a_server_that_went_away(dead_url: str) -> None:
    with ApiClient(dead_url, "key") as client, pytest.raises(ServerUnreachable, match="connection refused"):
        client.batch("x")
