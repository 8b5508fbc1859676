"""The page for users of mesh-client is true: what it says of each call, done by both clients, gives the same."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import mesh_client
import pytest
import requests

from nhs_mesh import INTEGRATION, LIVE, Credentials, Expired, MeshClient, NotFound, Part, Refused, Unauthorised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.sandbox import Sandbox
    from nhs_mesh import Message

PAGE = Path(__file__).parents[2] / "layers" / "mesh_client" / "docs" / "moving-from-mesh-client.md"
BODY = b"hello|world\n" * 1_000


class Moved:
    """mesh-client's calls, as the page says that they are done with nhs_mesh."""

    def __init__(self, client: MeshClient) -> None:
        self.client = client

    def handshake(self) -> None:
        self.client.handshake()

    def list_messages(self) -> list[str]:
        return list(self.client.inbox())

    def iterate_message_ids(self, workflow_filter: str) -> Iterator[str]:
        return self.client.inbox(workflow_filter=workflow_filter)

    def iterate_messages(self) -> Iterator[MovedMessage]:
        return (self.retrieve_message(message_id) for message_id in self.client.inbox())

    def count_messages(self) -> int:
        return self.client.count()

    def retrieve_message(self, message_id: str) -> MovedMessage:
        return MovedMessage(self.client, self.client.download(message_id))

    def retrieve_message_chunk(self, message_id: str, number: int) -> Message:
        return self.client.download(message_id, chunk=number)

    def acknowledge_message(self, message_id: str) -> None:
        self.client.acknowledge(message_id)

    def send_message(self, to: str, data: bytes, workflow_id: str, **options: Any) -> str:
        return self.client.send_file(to, workflow_id, data, **options).message_id

    def send_first_chunk(self, to: str, chunk: bytes, parts: int) -> str:
        return self.client.send(to, "W", part(chunk), parts=parts).message_id

    def send_further_chunk(self, message_id: str, chunk: bytes, number: int, parts: int) -> None:
        self.client.send_chunk(message_id, number, parts, part(chunk))

    def track_message(self, message_id: str) -> dict[str, str]:
        return {"status": str(self.client.track(message_id).status)}

    def lookup_endpoint(self, ods_code: str, workflow_id: str) -> dict[str, Any]:
        return {"results": [{"mailbox_id": each.mailbox_id} for each in self.client.lookup(ods_code, workflow_id)]}


class MovedMessage:
    """mesh-client's message, in the same way."""

    def __init__(self, client: MeshClient, message: Message) -> None:
        self._client = client
        self.message = message
        self.read, self.readline = message.read, message.readline

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.message, name)

    def id(self) -> str:
        return self.message.message_id

    def mex_header(self, name: str) -> str | None:
        return self.message.mex_headers.get(f"mex-{name}")

    def acknowledge(self) -> None:
        self._client.acknowledge(self.message.message_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.acknowledge()
        self.message.close()


class Theirs(mesh_client.MeshClient):
    """mesh-client itself, with one name for each of the two ways in which it sends a chunk."""

    def send_first_chunk(self, to: str, chunk: bytes, parts: int) -> str:
        return str(self.send_chunk(to, chunk, 1, parts, workflow_id="W").json()["message_id"])

    def send_further_chunk(self, message_id: str, chunk: bytes, number: int, parts: int) -> None:
        self.send_chunk("X26ABC3", chunk, number, parts, message_id=message_id)


def part(body: bytes) -> Part:
    return Part(lambda: io.BytesIO(body), len(body))


@pytest.fixture(params=["mesh-client", "nhs-mesh"])
def connect(
    request: pytest.FixtureRequest, sandbox: Sandbox, clean_mailboxes: None, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    made = sandbox.certificates
    files = {name: tmp_path / name for name in ("certificate", "private_key", "ca_bundle")}
    for name, file in files.items():
        file.write_text(getattr(made, name))
    opened: list[Any] = []

    def client(mailbox: str, password: str = "password") -> Any:
        if request.param == "nhs-mesh":
            tls = {name: file.read_text() for name, file in files.items()}
            credentials = Credentials(mailbox, password, "TestKey")
            ours = MeshClient(sandbox.base_url, credentials, passphrase=made.passphrase, **tls)
            opened.append(ours)
            return Moved(ours)
        cert = (str(files["certificate"]), str(files["private_key"]), made.passphrase)
        theirs = Theirs(
            sandbox.base_url, mailbox, password, shared_key=b"TestKey", cert=cert, verify=str(files["ca_bundle"])
        )
        opened.append(theirs)
        return theirs

    yield client
    for each in opened:
        each.close()


@pytest.fixture
def sender(connect: Callable[..., Any]) -> Any:
    return connect("X26ABC1")


@pytest.fixture
def receiver(connect: Callable[..., Any]) -> Any:
    return connect("X26ABC3")


def test_a_message_is_sent_found_read_and_acknowledged(sender: Any, receiver: Any) -> None:
    sender.handshake()
    message_id = sender.send_message(
        "X26ABC3",
        BODY,
        workflow_id="W",
        filename="a.csv",
        local_id="a-1",
        subject="Fee: £5",
        checksum="0123",
        content_type="text/csv",
        encrypted=True,
        compress=True,
    )
    assert receiver.list_messages() == [message_id]
    assert list(receiver.iterate_message_ids(workflow_filter="W*")) == [message_id]
    assert list(receiver.iterate_message_ids(workflow_filter="!W*")) == []
    with receiver.retrieve_message(message_id) as message:
        assert message.read() == BODY
        assert message.id() == message_id
        assert (message.sender, message.recipient, message.workflow_id) == ("X26ABC1", "X26ABC3", "W")
        assert (message.filename, message.local_id, message.subject) == ("a.csv", "a-1", "Fee: £5")
        assert (message.checksum, message.content_type, message.encrypted) == ("0123", "text/csv", True)
        assert message.mex_header("subject") == "Fee: £5"
    # Leaving it acknowledged it, by itself or as the page says.
    assert receiver.list_messages() == []
    assert sender.track_message(message_id)["status"] == "acknowledged"


def test_messages_are_gone_through_line_by_line(sender: Any, receiver: Any) -> None:
    ids = [sender.send_message("X26ABC3", b"one\ntwo\nthree", workflow_id="W") for _ in range(3)]
    messages = list(receiver.iterate_messages())
    assert [message.id() for message in messages] == ids
    assert [messages[0].readline() for _ in range(3)] == [b"one\n", b"two\n", b"three"]
    assert list(messages[1]) == [b"one\n", b"two\n", b"three"]
    assert messages[2].read() == b"one\ntwo\nthree"
    for message in messages:
        message.acknowledge()
    assert receiver.list_messages() == []


def test_a_message_is_sent_and_received_chunk_by_chunk(sender: Any, receiver: Any) -> None:
    message_id = sender.send_first_chunk("X26ABC3", b"one, ", 2)
    assert sender.track_message(message_id)["status"] == "uploading"
    sender.send_further_chunk(message_id, b"two", 2, 2)
    with receiver.retrieve_message(message_id) as message:
        assert message.read() == b"one, two"
    assert _content(receiver.retrieve_message_chunk(message_id, 2)) == b"two"
    receiver.acknowledge_message(message_id)


def _content(chunk: Any) -> bytes:
    """Read what either client gives for a chunk."""
    content: bytes = chunk.content if isinstance(chunk, requests.Response) else chunk.read()
    chunk.close()
    return content


@pytest.mark.filterwarnings("ignore:Call to deprecated function")
def test_messages_are_counted_and_mailboxes_looked_up(sender: Any, receiver: Any) -> None:
    sender.send_message("X26ABC3", b"x", workflow_id="W")
    assert receiver.count_messages() == 1
    found = sender.lookup_endpoint("X26", "TEST_WORKFLOW")["results"]
    assert [each["mailbox_id"] for each in found] == ["X26ABC2"]


def test_what_fails_with_one_fails_with_the_other(connect: Callable[..., Any], sender: Any) -> None:
    with pytest.raises((mesh_client.MeshError, Refused), match="Unregistered to address"):
        sender.send_message("NOBODY", b"x", workflow_id="W")
    with pytest.raises((requests.HTTPError, NotFound, Expired)):
        sender.retrieve_message("NEVERSENT")
    with pytest.raises((requests.HTTPError, Unauthorised)):
        connect("X26ABC1", "not this one").handshake()


def test_the_addresses_are_the_same() -> None:
    assert mesh_client.INT_ENDPOINT.url == INTEGRATION
    assert mesh_client.LIVE_ENDPOINT.url == LIVE


def test_every_call_that_the_page_names_is_there() -> None:
    text = PAGE.read_text()
    for method in re.findall(r"\| `client\.(\w+)\(", text):
        assert hasattr(mesh_client.MeshClient, method) or hasattr(MeshClient, method), method
    for row in re.findall(r"^\| `client\..*$", text, re.MULTILINE):
        theirs, ours = row.strip("| ").split(" | ", 1)
        assert all(hasattr(mesh_client.MeshClient, name) for name in re.findall(r"client\.(\w+)\(", theirs)), theirs
        assert all(hasattr(MeshClient, name) for name in re.findall(r"client\.(\w+)\(", ours)), ours
