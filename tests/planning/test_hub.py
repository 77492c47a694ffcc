"""A hub that is away is given up at once, and one that is slow is waited for."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from posttrain.errors import UserError
from posttrain.planning import hub
from posttrain.planning.model import config_of
from posttrain.recipe.schema import Model

CONFIG = json.dumps({"model_type": "llama", "hidden_size": 64}).encode()
COMMIT = "c" * 40


class SlowHub(http.server.BaseHTTPRequestHandler):
    """Has one file, and takes its time."""

    def do_HEAD(self) -> None:
        """Say what the file is, after a while."""
        time.sleep(0.5)
        self._head()

    def do_GET(self) -> None:
        """Give the file."""
        self._head()
        self.wfile.write(CONFIG)

    def _head(self) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", str(len(CONFIG)))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture(autouse=True)
def _asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    hub.unreachable.cache_clear()
    yield
    hub.unreachable.cache_clear()


def point_at(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Have the hub be on this port of this machine."""
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    template = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def slow_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    point_at(monkeypatch, server.server_address[1])
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_slow_hub_is_waited_for_and_its_answer_kept(
    slow_hub: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config_of(Model(base="org/slow")) == json.loads(CONFIG)
    hub.unreachable.cache_clear()
    point_at(monkeypatch, free_port())  # away from now on
    assert config_of(Model(base="org/slow")) == json.loads(CONFIG)


def test_an_absent_hub_is_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, free_port())
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        config_of(Model(base="org/absent"))
    assert time.monotonic() - began < 3
    expected = (
        "model.base: the configuration of org/absent cannot be fetched (127.0.0.1: Connection refused); "
        "download its config.json into a folder and give the folder"
    )
    assert caught.value.problems == [expected]


def test_a_hub_behind_a_silent_firewall_is_given_up_in_time() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # of a full queue Linux drops what else would connect, as such a firewall does
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        began = time.monotonic()
        said = hub.connection_problem("127.0.0.1", full.getsockname()[1], 0.3)
        assert said == "127.0.0.1 does not answer within 0.3 s"
        assert time.monotonic() - began < 2


def test_a_silent_name_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def silent(*arguments: object, **options: object) -> list[object]:
        answers.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    assert hub.connection_problem("hub.example", 443, 0.1) == "hub.example does not answer within 0.1 s"
    answers.set()


def test_with_a_proxy_it_is_the_proxy_that_is_asked(
    slow_hub: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{slow_hub.server_address[1]}")
    assert hub.unreachable() is None
    hub.unreachable.cache_clear()
    monkeypatch.setenv("no_proxy", "hub.invalid")
    assert (hub.unreachable() or "").startswith("hub.invalid: ")


def test_offline_mode_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.unreachable() == "HF_HUB_OFFLINE keeps it from asking huggingface.co"
