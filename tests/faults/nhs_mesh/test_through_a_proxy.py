"""MESH through a proxy: a process that sees where the client connects to, and nothing that is said."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local import children
from nhs_mesh import ConfigurationError, MeshError, SendOutcomeUnknown, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.sandbox import Sandbox

LOGIN = "trust:pass word"


class ConnectProxy:
    """The process, and what it was asked for."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("connect_proxy.py")), LOGIN],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())
        self.address = f"http://trust:pass%20word@127.0.0.1:{self.port}"

    def stop(self) -> list[str]:
        """End it; return what it was asked for."""
        self._process.terminate()
        said, _ = self._process.communicate(timeout=10)
        return said.splitlines()


@pytest.fixture
def proxy(clean_mailboxes: None) -> Iterator[ConnectProxy]:
    running = ConnectProxy()
    yield running
    running.stop()


def test_messages_go_through_a_proxy_with_the_client_certificate_inside(sandbox: Sandbox, proxy: ConnectProxy) -> None:
    body = random.Random(1).randbytes(500_000)
    with (
        sandbox.client(proxy=proxy.address) as sender,
        sandbox.client("X26ABC3", proxy=proxy.address) as receiver,
    ):
        sender.handshake()
        sent = sender.send_file("X26ABC3", "DPS", body, chunk_size=200_000)
        assert list(receiver.inbox()) == [sent.message_id]
        with receiver.download(sent.message_id) as message:
            assert message.read() == body
        receiver.acknowledge(sent.message_id)
    # The sandbox demands the client certificate; the proxy made two connections and saw nothing of it.
    host = sandbox.base_url.removeprefix("https://")
    assert proxy.stop() == [f"CONNECT {host} allowed"] * 2


def test_without_its_password_the_proxy_does_not_connect_and_nothing_is_sent(
    sandbox: Sandbox, proxy: ConnectProxy
) -> None:
    with sandbox.client(proxy=f"http://127.0.0.1:{proxy.port}", tries=1) as client:
        with pytest.raises(Unavailable, match="the proxy does not connect to MESH: it answered 407"):
            client.handshake()
        with pytest.raises(Unavailable, match="nothing was sent"):
            client.send_file("X26ABC3", "DPS", b"x")


def test_a_proxy_that_does_not_reach_mesh_says_so(sandbox: Sandbox, proxy: ConnectProxy) -> None:
    nobody = f"https://localhost:{children.free_port()}"
    with (
        sandbox.client(base_url=nobody, proxy=proxy.address, tries=1) as client,
        pytest.raises(Unavailable, match="it answered 502") as raised,
    ):
        client.handshake()
    assert "pass" not in str(raised.value)


def test_a_proxy_that_is_not_there_got_nothing(sandbox: Sandbox) -> None:
    with (
        sandbox.client(proxy=f"http://127.0.0.1:{children.free_port()}", tries=1) as client,
        pytest.raises(Unavailable, match="nothing was sent"),
    ):
        client.send_file("X26ABC3", "DPS", b"x")


def test_a_proxy_that_drips_ends_at_the_deadline(sandbox: Sandbox) -> None:
    over = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 Connection established\r\nX-Proxy: ")
            while not over.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        with sandbox.client(proxy=address, deadline=0.4, tries=1) as client, pytest.raises(MeshError) as raised:
            client.send_file("X26ABC3", "DPS", b"x")
        assert time.monotonic() - started < 2
        assert not isinstance(raised.value, SendOutcomeUnknown)
        over.set()
        thread.join(5)


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:8080", "https://proxy", "socks5://proxy", "http://", "http://x:word@p:y", "http://p/x"]
)
def test_an_address_that_is_no_proxy_s_is_refused_without_showing_it(sandbox: Sandbox, address: str) -> None:
    with pytest.raises(ConfigurationError, match="http://host:port") as raised:
        sandbox.client(proxy=address)
    assert "word@p" not in str(raised.value)


def test_no_proxy_is_used_unless_one_is_given(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{children.free_port()}")
    with sandbox.client(tries=1) as client:
        client.handshake()
