"""Whatever a server sends, and however slowly: an error of the tree in time, and nothing that is taken for whole."""

from __future__ import annotations

import gzip
import io
import json
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from local import certificates
from nhs_mesh import (
    Corrupted,
    Credentials,
    MeshClient,
    MeshError,
    Part,
    Refused,
    SendOutcomeUnknown,
    Unavailable,
)
from tests.faults.nhs_mesh.fault_server import FaultServer, Line, answer, drip, head, raw, wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from local.certificates import Certificates

DEADLINE = 0.4
#: What a loaded machine may take beyond it.
MARGIN = 1.6
BODY = random.Random(4).randbytes(200_000)
DIGITS = "9" * 5_000
PAGE = json.dumps({"messages": ["ONE"], "links": {}}).encode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def running(made: Certificates) -> Iterator[FaultServer]:
    with FaultServer(made) as server:
        yield server


@pytest.fixture
def server(running: FaultServer) -> Iterator[FaultServer]:
    running.begin()
    yield running
    running.begin()


def connect(made: Certificates, server: FaultServer, **options: Any) -> MeshClient:
    tls = {name: getattr(made, name) for name in ("certificate", "private_key", "passphrase", "ca_bundle")}
    given = {"timeout": (DEADLINE, DEADLINE), "deadline": DEADLINE, "tries": 3, "pauses": (0.0, 0.0)} | options
    return MeshClient(server.base_url, Credentials("X26ABC1", "password", "TestKey"), **tls, **given)


@pytest.fixture(scope="module")
def shared_client(made: Certificates, running: FaultServer) -> Iterator[MeshClient]:
    with connect(made, running) as client:
        yield client


@pytest.fixture
def client(shared_client: MeshClient) -> MeshClient:
    shared_client.close()
    return shared_client


def part(body: bytes = b"hello") -> Part:
    return Part(lambda: io.BytesIO(body), len(body))


def receive(client: MeshClient, **options: Any) -> list[bytes]:
    """Receive as everybody does: acknowledge what was read to its end."""
    read = []
    for message_id in client.inbox():
        with client.download(message_id, **options) as message:
            read.append(message.read())
        client.acknowledge(message_id)
    return read


def timed(call: Callable[[], object]) -> MeshError:
    """Make a call that has to fail within the deadline; return its error."""
    started = time.monotonic()
    with pytest.raises(MeshError) as raised:
        call()
    assert time.monotonic() - started < DEADLINE + MARGIN
    assert "NHSMESH" not in str(raised.value)
    return raised.value


CALLS: dict[str, Callable[[MeshClient], object]] = {
    "handshake": lambda client: client.handshake(),
    "inbox": lambda client: list(client.inbox()),
    "count": lambda client: client.count(),
    "download": lambda client: client.download("ONE").read(),
    "acknowledge": lambda client: client.acknowledge("ONE"),
    "send": lambda client: client.send("X26ABC3", "DPS", part()),
    "send_chunk": lambda client: client.send_chunk("ONE", 2, 2, part()),
    "track": lambda client: client.track("ONE"),
    "track_by_local_id": lambda client: client.track_by_local_id("ONE"),
    "lookup": lambda client: client.lookup("X26", "DPS"),
    "search_workflow": lambda client: client.search_workflow("DPS"),
}


def endless(line: Line) -> None:
    """Send an error of 300 MB, as far as anybody listens."""
    line.send(head(400, "Content-Length: 300000000"))
    for _ in range(300):
        line.send(bytes(1_000_000))


def continued(line: Line) -> None:
    """Say "100 Continue" again and again."""
    line.drip(head("100") * 1_000)


#: No answers to any request.
NO_ANSWERS: dict[str, Callable[[Line], bool | None]] = {
    "nothing at all": raw(),
    "rubbish": raw(b"rubbish\r\n\r\n"),
    "bytes": raw(bytes(range(256)) * 10),
    "a status of 5,000 digits": raw(head(DIGITS)),
    "a status of four digits": raw(head("2000")),
    "a length of 5,000 digits": raw(head(500, f"Content-Length: {DIGITS}")),
    "two lengths": raw(head(200, "Content-Length: 1, 2"), b"{}"),
    "a header of 100,000 bytes": raw(head(200, f"Mex-Subject: {'x' * 100_000}")),
    "a thousand headers": raw(head(200, *["Mex-Subject: x"] * 1_000)),
    "a chunk of rubbish length": raw(head(200, "Transfer-Encoding: chunked"), b"rubbish\r\n"),
    "a chunk of endless length": raw(head(200, "Transfer-Encoding: chunked"), DIGITS.encode() + b"\r\nx"),
    "a body cut short": answer(200, b'{"messages"', length=100),
    "an error body cut short": answer(500, b"{", length=100),
    "a redirect": answer(302, b"", "Location: https://127.0.0.1:1/elsewhere"),
    "a redirect to nowhere": answer(307, b"", f"Location: http://[{'x' * 100}"),
    "a redirect with 300 MB": lambda line: line.send(head(302, "Location: /", "Content-Length: 300000000"), BODY),
    "retry after 5,000 digits": answer(503, b"", f"Retry-After: {DIGITS}"),
    "a date that is none": answer(403, b"", f"Date: Wed, 21 Oct {DIGITS} 07:28:00 GMT"),
    "a deep error": answer(417, b"[" * 60_000),
    "an error of odd words": answer(417, b'{"detail": [{"code": {"a": [1]}, "msg": 12}], "errorEvent": [1]}'),
    "an error of 300 MB": endless,
    "a head that drips": drip(b"x", head(200)[:-2] + b"Mex-Subject: "),
    "a status that drips": drip(b"HTTP/1.1 200 OK" + b"x" * 1_000),
    "an error body that drips": drip(b"x", head(500, "Content-Length: 1000")),
    "continue, for ever": continued,
    "silence": lambda line: line.server.over.wait(5),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", [fault for fault in NO_ANSWERS if not fault.endswith(("drips", "ever", "silence"))])
def test_no_answer_at_all_is_an_error_of_the_tree(
    client: MeshClient, server: FaultServer, fault: str, call: str
) -> None:
    server.begin(NO_ANSWERS[fault])
    timed(lambda: CALLS[call](client))
    assert server.sent < 20_000_000


# Each of these takes the deadline: a few calls are enough.
@pytest.mark.parametrize("call", ["handshake", "download", "send"])
@pytest.mark.parametrize("fault", [fault for fault in NO_ANSWERS if fault.endswith(("drips", "ever", "silence"))])
def test_what_drips_ends_at_the_deadline(client: MeshClient, server: FaultServer, fault: str, call: str) -> None:
    server.begin(NO_ANSWERS[fault])
    error = timed(lambda: CALLS[call](client))
    assert isinstance(error, SendOutcomeUnknown if call == "send" else Unavailable)


def test_an_answer_that_drips_ends_at_the_deadline(client: MeshClient, server: FaultServer) -> None:
    server.begin(drip(b"[", head(200, "Content-Length: 1000")))
    assert isinstance(timed(client.count), Unavailable)


def test_a_server_that_drips_its_part_of_tls_ends_at_the_deadline(client: MeshClient, server: FaultServer) -> None:
    def hello(plain: socket.socket) -> None:
        plain.recv(1)
        for byte in b"\x16\x03\x03\x40\x00" + bytes(10_000):
            plain.sendall(bytes([byte]))
            if server.over.wait(0.02):
                return

    server.on_accept = hello
    assert "no connection was made" in str(timed(client.handshake))
    assert "nothing was sent" in str(timed(lambda: client.send("X26ABC3", "DPS", part())))


def test_a_server_that_never_takes_a_body_ends_at_the_deadline(client: MeshClient, server: FaultServer) -> None:
    server.begin(lambda line: line.server.over.wait(5))
    error = timed(lambda: client.send("X26ABC3", "DPS", part(bytes(20_000_000))))
    assert isinstance(error, SendOutcomeUnknown)


def test_a_body_that_goes_slowly_is_not_ended_as_long_as_it_goes(client: MeshClient, server: FaultServer) -> None:
    def slowly(line: Line) -> bool:
        received = len(line.rest)
        while received < len(body):
            received += len(line.connection.recv(1 << 16))
            time.sleep(0.001)
        line.send(head(202, "Content-Length: 21"), b'{"message_id": "ONE"}')
        return True

    body = bytes(8_000_000)
    server.begin(slowly)
    started = time.monotonic()
    assert client.send("X26ABC3", "DPS", part(body)).message_id == "ONE"
    assert time.monotonic() - started > DEADLINE


# -- documents


@pytest.mark.parametrize("call", ["inbox", "count", "track", "track_by_local_id", "lookup", "search_workflow", "send"])
@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        f'{{"count": {DIGITS}}}'.encode(),
        b'{"messages": {}, "count": "3", "results": {}, "message_id": {}}',
        b'{"messages": [{}], "count": true, "results": ["x"], "message_id": ["x"], "status": {}}',
        b'{"messages": ["../x"], "count": 1.5, "results": [{}], "message_id": "", "status": "accepted"}',
        b'{"messages": ["\\ud800"], "count": null, "results": [{"mailbox_id": 1}], "message_id": "a b"}',
        b'{"messages": [1], "count": [], "results": null, "message_id": null, "status": ""}',
        b'{"messages": ["A"], "links": {"next": 1}, "count": {}, "message_id": 12}',
        b'{"messages": ["A"], "links": {"next": "no question"}}',
        b'{"messages": ["A"], "links": {"next": "?\\r\\nMex-To: X"}}',
        b'{"messages": ["A"], "links": {"next": "//[/?\\u2028"}}',
    ],
    ids=lambda document: ascii(document[:40]),
)
def test_a_document_that_is_none_is_unavailable(
    client: MeshClient, server: FaultServer, document: bytes, call: str
) -> None:
    server.begin(answer(200, document))
    error = timed(lambda: CALLS[call](client))
    assert isinstance(error, SendOutcomeUnknown if call == "send" else Unavailable)


def test_a_document_without_an_end_is_given_up(client: MeshClient, server: FaultServer) -> None:
    def endless_document(line: Line) -> None:
        line.send(head(200, "Content-Length: 300000000"))
        for _ in range(300):
            line.send(b" " * 1_000_000)

    server.begin(endless_document)
    with pytest.raises(Unavailable, match="too long"):
        client.count()
    assert server.sent < 30_000_000


# -- listings


def page(*ids: str, following: str | None = None) -> Callable[[Line], bool | None]:
    links = {"next": f"/messageexchange/X26ABC1/inbox?{following}"} if following else {}
    return answer(200, json.dumps({"messages": ids, "links": links}).encode())


def test_an_id_that_a_listing_gives_twice_is_given_once(client: MeshClient, server: FaultServer) -> None:
    server.begin(
        page("A", "B", "A", following="continue_from=B"),
        page("A", "B", following="continue_from=B2"),  # B was acknowledged meanwhile: it begins again at the top
        page("C", "B", following="continue_from=C"),
        page(),
    )
    assert list(client.inbox()) == ["A", "B", "C"]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_links_that_go_round_in_a_circle_come_to_an_end(client: MeshClient, server: FaultServer, length: int) -> None:
    circle = [page(f"M{number}", following=f"continue_from={(number + 1) % length}") for number in range(length)]
    server.begin(page("FIRST", following="continue_from=0"), *circle, *circle)
    ids = client.inbox()
    assert [next(ids) for _ in range(length + 1)] == ["FIRST", *(f"M{number}" for number in range(length))]
    with pytest.raises(Unavailable, match="leads back"):
        next(ids)


def test_links_that_always_lead_on_come_to_an_end(
    client: MeshClient, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nhs_mesh.client._EMPTY_PAGES", 20)

    def on(line: Line) -> bool | None:
        return page("A", following=f"continue_from={len(line.server.requests)}")(line)

    server.begin(on)
    with pytest.raises(Unavailable, match="no end"):
        list(client.inbox())
    assert len(server.requests) == 21


def test_a_link_cannot_lead_to_another_host_or_mailbox(client: MeshClient, server: FaultServer) -> None:
    elsewhere = {"messages": ["A"], "links": {"next": "https://127.0.0.1:1/messageexchange/OTHER/inbox?x=1"}}
    server.begin(answer(200, json.dumps(elsewhere).encode()), page("B"))
    assert list(client.inbox()) == ["A", "B"]
    assert server.requests[1] == "GET /X26ABC1/inbox?x=1"


# -- messages: whole, or not acknowledged


def message(status: int, chunk_range: str | None, body: bytes = BODY, *headers: str) -> Callable[[Line], bool | None]:
    ranges = [] if chunk_range is None else [f"Mex-Chunk-Range: {chunk_range}"]
    return answer(status, body, *ranges, *headers)


GZIP = "Content-Encoding: gzip"
PACKED = gzip.compress(BODY, mtime=0)
FIRST = message(206, "1:2")
WRONG: dict[str, list[Callable[[Line], bool | None]]] = {
    "206 without a range": [message(206, None)],
    "206 with an empty range": [message(206, "")],
    "206 of one": [message(206, "1:1")],
    "200 of two": [message(200, "1:2")],
    "another chunk": [message(206, "2:3")],
    "the last chunk first": [message(200, "2:2")],
    "no chunk": [message(206, "0:2")],
    "chunk of none": [message(200, "1:0")],
    "fewer than its number": [message(206, "1:-2")],
    "a range of 5,000 digits": [message(206, f"1:{DIGITS}")],
    "a number of 5,000 digits": [message(206, f"{DIGITS}:2")],
    "a range of other digits": [message(206, "1:\u00b2")],
    "three numbers": [message(206, "1:2:3")],
    "a range that is none": [message(206, "rubbish")],
    "201": [message(201, "1:1")],
    "no content": [raw(head(204, "Mex-Chunk-Range: 1:1"))],
    "no length": [raw(head(200, "Mex-Chunk-Range: 1:1"), BODY)],
    "a length of 5,000 digits": [raw(head(200, f"Content-Length: {DIGITS}"), BODY)],
    "another encoding": [message(200, "1:1", BODY, "Content-Encoding: br")],
    "gzip twice": [message(200, "1:1", gzip.compress(PACKED), "Content-Encoding: gzip, gzip")],
    "no gzip": [message(200, "1:1", BODY, GZIP)],
    "gzip cut short": [message(200, "1:1", PACKED[:-100], GZIP)],
    "gzip without its end": [message(200, "1:1", PACKED[:-1], GZIP)],
    "gzip of nothing": [message(200, "1:1", b"", GZIP)],
    "gzip and more": [message(200, "1:1", PACKED + b"and more", GZIP)],
    "gzip of another sum": [message(200, "1:1", PACKED[:-8] + bytes(8), GZIP)],
    "second chunk without a range": [FIRST, message(200, None)],
    "second chunk is the first": [FIRST, message(206, "1:2")],
    "second chunk is the third": [FIRST, message(200, "3:3")],
    "second chunk of more": [FIRST, message(206, "2:3")],
    "second chunk is not the last": [FIRST, message(206, "2:2")],
    "second chunk of a longer message": [message(206, "1:3"), message(200, "2:3")],
    "second chunk is gzip cut short": [FIRST, message(200, "2:2", PACKED[:-100], GZIP)],
}
#: What breaks once, and is another body when it is asked for again.
BREAKS = answer(200, BODY[:150_000], "Mex-Chunk-Range: 1:1", 'ETag: "one"', length=len(BODY))
OTHER: dict[str, Callable[[Line], bool | None]] = {
    "of other bytes": message(200, "1:1", bytes(len(BODY)), 'ETag: "one"'),
    "of another end": message(200, "1:1", BODY[:149_000] + bytes(51_000), 'ETag: "one"'),
    "that is longer": message(200, "1:1", BODY + b"x", 'ETag: "one"'),
    "that is shorter": message(200, "1:1", BODY[:-1], 'ETag: "one"'),
    "of another version": message(200, "1:1", BODY, 'ETag: "two"'),
    "of no version": message(200, "1:1", BODY),
    "that is compressed": message(200, "1:1", PACKED, GZIP, 'ETag: "one"'),
    "of another checksum": message(200, "1:1", BODY, 'ETag: "one"', f"Mex-Content-Checksum: {'0' * 32}"),
    "in chunks": message(206, "1:2", BODY, 'ETag: "one"'),
}


def acknowledged(server: FaultServer) -> list[str]:
    return [request for request in server.requests if request.startswith("PUT")]


@pytest.mark.parametrize("faults", [pytest.param(faults, id=name) for name, faults in WRONG.items()])
def test_what_is_not_whole_is_corrupted_and_never_acknowledged(
    client: MeshClient, server: FaultServer, faults: list[Callable[[Line], bool | None]]
) -> None:
    server.begin(answer(200, PAGE), *faults)
    error = timed(lambda: receive(client))
    assert isinstance(error, Corrupted)
    assert acknowledged(server) == []


@pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in OTHER.items()])
def test_another_body_where_one_went_on_is_corrupted_and_never_acknowledged(
    client: MeshClient, server: FaultServer, fault: Callable[[Line], bool | None]
) -> None:
    server.begin(answer(200, PAGE), BREAKS, fault)
    error = timed(lambda: receive(client))
    assert isinstance(error, Corrupted)
    assert "another" in str(error)
    assert acknowledged(server) == []


def test_the_same_body_goes_on_and_is_acknowledged(client: MeshClient, server: FaultServer) -> None:
    server.begin(answer(200, PAGE), BREAKS, BREAKS, message(200, "1:1", BODY, 'ETag: "one"'), answer(200))
    assert receive(client) == [BODY]
    assert acknowledged(server) == ["PUT /X26ABC1/inbox/ONE/status/acknowledged"]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(drip(b"x", head(200, "Content-Length: 200000")), id="from its beginning"),
        pytest.param(drip(b"x", head(200, "Content-Length: 200000") + BODY[:100_000]), id="in its middle"),
        pytest.param(drip(b"1\r\nx\r\n", head(200, "Transfer-Encoding: chunked")), id="in pieces"),
    ],
)
def test_a_message_that_drips_ends_at_the_deadline_and_is_not_acknowledged(
    client: MeshClient, server: FaultServer, fault: Callable[[Line], bool | None]
) -> None:
    server.begin(answer(200, PAGE), fault)
    assert isinstance(timed(lambda: receive(client)), Unavailable)
    assert acknowledged(server) == []


def test_a_message_that_comes_slowly_is_not_ended_as_long_as_it_comes(client: MeshClient, server: FaultServer) -> None:
    def slowly(line: Line) -> bool:
        line.send(head(200, f"Content-Length: {len(BODY) * 3}"))
        for _ in range(30):
            line.send(BODY[: len(BODY) // 10])
            time.sleep(0.03)
        return True

    server.begin(slowly)
    started = time.monotonic()
    with client.download("ONE") as read:
        assert len(read.read()) == len(BODY) * 3
    assert time.monotonic() - started > DEADLINE


def test_a_chunked_encoding_of_a_message_is_whole_once_it_ends(client: MeshClient, server: FaultServer) -> None:
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(BODY), BODY) for _ in range(2))
    server.begin(answer(200, PAGE), raw(head(200, "Transfer-Encoding: chunked"), pieces, b"0\r\n\r\n"), answer(200))
    assert receive(client) == [BODY * 2]
    server.begin(answer(200, PAGE), raw(head(200, "Transfer-Encoding: chunked"), pieces))
    assert isinstance(timed(lambda: receive(client)), Unavailable)
    assert acknowledged(server) == []


# -- sending


def test_a_part_that_is_refused_before_it_has_gone_is_refused(client: MeshClient, server: FaultServer) -> None:
    def early(line: Line) -> None:
        line.send(head(413, "Content-Length: 0"))

    server.begin(early)
    for call in (
        lambda: client.send("X26ABC3", "DPS", part(bytes(30_000_000))),
        lambda: client.send_chunk("ONE", 2, 3, part(bytes(30_000_000))),
    ):
        error = timed(call)
        # Where the system throws the answer away with the connection, nobody can know it.
        assert isinstance(error, (Refused, SendOutcomeUnknown, Unavailable))
        assert not isinstance(error, Refused) or error.status == 413


def test_a_part_that_is_taken_before_it_has_gone_is_not_taken_for_sent(client: MeshClient, server: FaultServer) -> None:
    def early(line: Line) -> None:
        line.send(head(202, "Content-Length: 21"), b'{"message_id": "ONE"}')

    server.begin(early)
    assert isinstance(timed(lambda: client.send("X26ABC3", "DPS", part(bytes(30_000_000)))), SendOutcomeUnknown)
    assert isinstance(timed(lambda: client.send_chunk("ONE", 2, 3, part(bytes(30_000_000)))), Unavailable)


# -- connections


def test_connections_that_the_server_closes_while_they_idle_are_no_trouble(
    client: MeshClient, server: FaultServer
) -> None:
    sent = raw(head(202, "Content-Length: 21"), b'{"message_id": "ONE"}')
    server.begin(sent)
    for number in range(1, 6):
        assert client.send("X26ABC3", "DPS", part()).message_id == "ONE"
        assert server.connections == number
        time.sleep(0.02)  # until the end of the connection has come


def test_a_connection_that_breaks_as_it_is_used_is_told_as_unknown(client: MeshClient, server: FaultServer) -> None:
    server.begin(answer(200), raw())
    client.handshake()
    assert "the connection to MESH broke" in str(timed(lambda: client.send("X26ABC3", "DPS", part())))
    assert server.connections == 1


def test_a_certificate_that_is_refused_without_a_word_is_told_as_such(client: MeshClient, server: FaultServer) -> None:
    server.begin(raw())
    for call in (client.handshake, lambda: client.send("X26ABC3", "DPS", part())):
        assert "does not take the client certificate" in str(timed(call))
    wait_until(lambda: server.connections >= 4)
    # The handshake is tried three times. What may have arrived is not.
    assert server.connections == 4
