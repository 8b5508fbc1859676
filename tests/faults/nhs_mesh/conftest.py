"""The breaking proxy, and clients that go through it without ever really sleeping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.faults.nhs_mesh.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.sandbox import Sandbox
    from nhs_mesh import MeshClient


@pytest.fixture(scope="session")
def running_proxy(sandbox: Sandbox) -> Iterator[Proxy]:
    with Proxy(sandbox) as running:
        yield running


@pytest.fixture
def proxy(running_proxy: Proxy, clean_mailboxes: None) -> Iterator[Proxy]:
    running_proxy.begin()
    yield running_proxy
    # Whatever a test was about, this holds.
    assert running_proxy.replayed == []
    assert len(set(running_proxy.tokens)) == len(running_proxy.tokens)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have slept."""
    slept: list[float] = []
    monkeypatch.setattr("nhs_mesh.transport._sleep", slept.append)
    return slept


@pytest.fixture(scope="session")
def opened_key(sandbox: Sandbox) -> str:
    """The client's key without encryption: opening it takes longer than most of these tests."""
    made = sandbox.certificates
    key = load_pem_private_key(made.private_key.encode(), made.passphrase.encode())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def make(proxy: Proxy, sandbox: Sandbox, sleeps: list[float], opened_key: str) -> Iterator[Callable[..., MeshClient]]:
    made: list[MeshClient] = []

    def client(mailbox: str = "X26ABC1", **options: Any) -> MeshClient:
        given: dict[str, Any] = {
            "base_url": proxy.base_url,
            "private_key": opened_key,
            "timeout": (5.0, 0.3),
        } | options
        made.append(sandbox.client(mailbox, **given))
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def client(make: Callable[..., MeshClient]) -> MeshClient:
    """The sender, through the proxy."""
    return make()


@pytest.fixture
def receiver(make: Callable[..., MeshClient]) -> MeshClient:
    """The receiver, through the proxy."""
    return make("X26ABC3")


@pytest.fixture
def direct(sandbox: Sandbox, opened_key: str) -> Iterator[MeshClient]:
    """The sender, past the proxy, to see what MESH really has."""
    with sandbox.client(private_key=opened_key) as past_the_proxy:
        yield past_the_proxy
