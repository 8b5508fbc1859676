"""NHS England's own client reads what ours sent, and ours what it sent."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

mesh_client = pytest.importorskip("mesh_client")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from local.sandbox import Sandbox
    from nhs_mesh import MeshClient

BODIES = {
    "text": b"".join(b"hello|world|%d\n" % number for number in range(2_000)),
    "random": random.Random(3).randbytes(30_000),
}


@pytest.fixture
def theirs(sandbox: Sandbox, clean_mailboxes: None, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    made = sandbox.certificates
    files = {name: tmp_path / name for name in ("certificate", "private_key", "ca_bundle")}
    for name, file in files.items():
        file.write_text(getattr(made, name))
    clients: list[Any] = []

    def connect(mailbox: str) -> Any:
        client = mesh_client.MeshClient(
            sandbox.base_url,
            mailbox,
            sandbox.password,
            shared_key=sandbox.shared_key.encode(),
            cert=(str(files["certificate"]), str(files["private_key"]), made.passphrase),
            verify=str(files["ca_bundle"]),
        )
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.mark.parametrize("compress", [True, False], ids=["compressed", "plain"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "whole"])
@pytest.mark.parametrize("kind", BODIES)
def test_theirs_reads_what_ours_sent(
    sender: MeshClient, theirs: Callable[[str], Any], kind: str, chunked: bool, compress: bool
) -> None:
    body = BODIES[kind]
    sent = sender.send_file(
        "X26ABC3",
        "DPS_EXPORT",
        body,
        filename="vaccinations.csv",
        local_id="export-1-1",
        subject="a subject",
        compress=compress,
        chunk_size=2_000 if chunked else 100_000,
    )
    assert (sent.parts > 1) is chunked
    client = theirs("X26ABC3")
    assert client.list_messages() == [sent.message_id]
    with client.retrieve_message(sent.message_id) as message:
        assert message.read() == body
        assert message.filename == "vaccinations.csv"
        assert message.local_id == "export-1-1"
        assert message.subject == "a subject"
        assert message.workflow_id == "DPS_EXPORT"
    client.acknowledge_message(sent.message_id)
    assert sender.track(sent.message_id).status == "acknowledged"


@pytest.mark.parametrize("compress", [True, False], ids=["compressed", "plain"])
@pytest.mark.parametrize("chunk_size", [1_000, 100_000], ids=["chunked", "whole"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_ours_reads_what_theirs_sent(
    receiver: MeshClient, theirs: Callable[[str], Any], body: bytes, chunk_size: int, compress: bool
) -> None:
    client = theirs("X26ABC1")
    message_id = client.send_message(
        "X26ABC3",
        body,
        max_chunk_size=chunk_size,
        compress=compress,
        workflow_id="DPS_EXPORT",
        filename="vaccinations.csv",
        local_id="export-1-1",
        subject="a subject",
    )
    assert list(receiver.inbox()) == [message_id]
    with receiver.download(message_id) as message:
        assert message.chunks == (-(-len(body) // chunk_size))
        assert message.read() == body
        assert message.filename == "vaccinations.csv"
        assert message.local_id == "export-1-1"
        assert message.subject == "a subject"
        assert message.workflow_id == "DPS_EXPORT"
        assert message.sender == "X26ABC1"
    receiver.acknowledge(message_id)
    assert client.track_message(message_id)["status"] == "acknowledged"
