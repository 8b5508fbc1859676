"""Whatever a server sends, and however slowly: an error of the tree in time, and nothing that is taken for whole."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import random
import socket
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from local import certificates
from nhs_mesh import (
    ConfigurationError,
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
    from collections.abc import Callable, Iterator
    from pathlib import Path

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
    """Give a client whose deadline comes soon, for tests of deadlines."""
    shared_client.close()
    return shared_client


@pytest.fixture
def patient(made: Certificates, server: FaultServer) -> Iterator[MeshClient]:
    """Give a client whose deadline does not come before a loaded machine has answered."""
    with connect(made, server, timeout=(5.0, 5.0), deadline=5.0) as client:
        yield client


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
    "another status first": raw(head(103, "Link: x")),
    "a line that is no header": raw(head(200, "Content-Length: 2", "no header", "Mex-MessageType: REPORT") + b"{}"),
    "a space before a colon": raw(head(200, "Content-Length: 2", "Content-Encoding : gzip") + b"{}"),
    "a bare line end in a header": raw(head(200, "Content-Length: 2", "Mex-Subject: a\rb", "Mex-From: x") + b"{}"),
    "two bare line ends in a header": raw(head(200, "Content-Length: 2", "Mex-Subject: a\r\r", "Mex-From: x") + b"{}"),
    "a header before the first": raw(head(200, " b", "Content-Length: 2") + b"{}"),
    "a head cut short": raw(head(200, "Content-Length: 0")[:-2]),
    "a chunk of less than nothing": raw(head(200, "Transfer-Encoding: chunked"), b"-1\r\n{}"),
    "a chunk of a Python number": raw(head(200, "Transfer-Encoding: chunked"), b"0x2\r\n{}\r\n0\r\n\r\n"),
    "a chunk of an underscored number": raw(head(200, "Transfer-Encoding: chunked"), b"0_2\r\n{}\r\n0\r\n\r\n"),
    "a chunk that is less than nothing at its end": raw(
        head(200, "Transfer-Encoding: chunked"), b"2\r\n{}\r\n-0\r\n\r\n"
    ),
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
    patient: MeshClient, server: FaultServer, document: bytes, call: str
) -> None:
    server.begin(answer(200, document))
    error = timed(lambda: CALLS[call](patient))
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


def test_an_id_that_a_listing_gives_twice_is_given_once(patient: MeshClient, server: FaultServer) -> None:
    server.begin(
        page("A", "B", "A", following="continue_from=B"),
        page("A", "B", following="continue_from=B2"),  # B was acknowledged meanwhile: it begins again at the top
        page("C", "B", following="continue_from=C"),
        page(),
    )
    assert list(patient.inbox()) == ["A", "B", "C"]


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


def test_a_link_cannot_lead_to_another_host_or_mailbox(patient: MeshClient, server: FaultServer) -> None:
    elsewhere = {"messages": ["A"], "links": {"next": "https://127.0.0.1:1/messageexchange/OTHER/inbox?x=1"}}
    server.begin(answer(200, json.dumps(elsewhere).encode()), page("B"))
    assert list(patient.inbox()) == ["A", "B"]
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
    **{
        f"an end that only its connection has, in {encoding!r}": [
            raw(head(200, *(f"Transfer-Encoding:{each}" for each in encoding.split("+"))), BODY[:1_000])
        ]
        for encoding in (" identity", "", " x", " gzip", " gzip, chunked", " identity+ chunked", " chunked, identity")
    },
    "chunks of a space too many": [raw(head(200, "Transfer-Encoding: chunked "), b"1\r\nx\r\n0\r\n\r\n")],
    "a transfer encoding and a length": [answer(200, BODY, "Transfer-Encoding: gzip")],
    "another message": [message(200, None, BODY, "Mex-MessageID: TWO")],
    "second chunk of another message": [FIRST, message(200, "2:2", BODY, "Mex-MessageID: TWO")],
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
    "of other bytes before the last block": message(200, "1:1", bytes(50_000) + BODY[50_000:], 'ETag: "one"'),
    "of another sender": message(200, "1:1", BODY, 'ETag: "one"', "Mex-From: X26ABC9"),
    "of another message": message(200, "1:1", BODY, 'ETag: "one"', "Mex-MessageID: TWO"),
}


def acknowledged(server: FaultServer) -> list[str]:
    return [request for request in server.requests if request.startswith("PUT")]


@pytest.mark.parametrize("faults", [pytest.param(faults, id=name) for name, faults in WRONG.items()])
def test_what_is_not_whole_is_corrupted_and_never_acknowledged(
    patient: MeshClient, server: FaultServer, faults: list[Callable[[Line], bool | None]]
) -> None:
    server.begin(answer(200, PAGE), *faults)
    error = timed(lambda: receive(patient))
    assert isinstance(error, Corrupted)
    assert acknowledged(server) == []


@pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in OTHER.items()])
def test_another_body_where_one_went_on_is_corrupted_and_never_acknowledged(
    patient: MeshClient, server: FaultServer, fault: Callable[[Line], bool | None]
) -> None:
    server.begin(answer(200, PAGE), BREAKS, fault)
    error = timed(lambda: receive(patient))
    assert isinstance(error, Corrupted)
    assert "another" in str(error)
    assert acknowledged(server) == []


def test_the_same_body_goes_on_and_is_acknowledged(patient: MeshClient, server: FaultServer) -> None:
    server.begin(answer(200, PAGE), BREAKS, BREAKS, message(200, "1:1", BODY, 'ETag: "one"'), answer(200))
    assert receive(patient) == [BODY]
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


def test_a_compressed_message_that_is_made_again_goes_on(patient: MeshClient, server: FaultServer) -> None:
    first, again = (gzip.compress(BODY, mtime=mtime) for mtime in (1, 2))
    for broken_at in (5, 10, 150_000):
        breaks = answer(200, first[:broken_at], GZIP, length=len(first))
        server.begin(answer(200, PAGE), breaks, message(200, None, again, GZIP), answer(200))
        assert receive(patient) == [BODY]


def test_a_report_is_one_whatever_spaces_stand_around_its_headers(patient: MeshClient, server: FaultServer) -> None:
    server.begin(answer(200, b"", "Mex-MessageType:  REPORT \t", "Mex-LinkedMsgID: ABC\t", "Mex-Subject: a\r\n  b "))
    with patient.download("ONE") as read:
        assert read.is_report
        assert (read.linked_message_id, read.subject) == ("ABC", "a b")


def test_a_message_in_chunks_that_also_say_a_length_of_5_000_digits_is_read(
    patient: MeshClient, server: FaultServer
) -> None:
    server.begin(raw(head(200, "Transfer-Encoding: chunked", f"Content-Length: {DIGITS}"), b"2;x=y\r\nhi\r\n0\r\n\r\n"))
    with patient.download("ONE") as read:
        assert read.read() == b"hi"


def test_a_chunk_of_less_than_nothing_takes_no_memory(client: MeshClient, server: FaultServer) -> None:
    def endless_chunk(line: Line) -> None:
        line.send(head(200, "Transfer-Encoding: chunked"), b"-1\r\n")
        for _ in range(100):
            line.send(bytes(1_000_000))

    server.begin(endless_chunk)
    tracemalloc.start()
    timed(lambda: client.download("ONE").read(10))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20_000_000


def test_the_connection_of_another_message_is_closed(patient: MeshClient, server: FaultServer) -> None:
    server.begin(message(200, None, b"two", "Mex-MessageID: TWO"), message(200, None, b"one", "Mex-MessageID: one"))
    assert isinstance(timed(lambda: patient.download("ONE")), Corrupted)
    with patient.download("ONE") as read:
        assert read.read() == b"one"
    assert server.connections == 2


def test_what_does_not_parse_is_not_logged(
    client: MeshClient, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.begin(raw(head(200, "Content-Length: 2", "no header", "Mex-FileName: Jane Doe.csv") + b"{}"))
    timed(client.count)
    assert "Failed to parse" not in caplog.text
    assert "Jane" not in caplog.text


def test_an_answer_that_comes_late_is_not_taken_for_that_to_the_next_request(
    client: MeshClient, server: FaultServer
) -> None:
    def sent(message_id: str) -> bytes:
        body = f'{{"message_id": "{message_id}"}}'.encode()
        return head(202, f"Content-Length: {len(body)}") + body

    def late(first: bytes) -> Callable[[Line], bool]:
        def act(line: Line) -> bool:
            line.read_body()
            line.send(first)
            time.sleep(0.1)
            line.send(sent("OF-THE-FIRST"))
            return True

        return act

    def second(line: Line) -> bool:
        line.read_body()
        line.send(sent("OF-THE-SECOND"))
        return True

    for first in (head(102), head(103, "Link: x")):
        server.begin(late(first), second)
        assert isinstance(timed(lambda: client.send("X26ABC3", "DPS", part())), SendOutcomeUnknown)
        assert client.send("X26ABC3", "DPS", part()).message_id == "OF-THE-SECOND"
    for status in (204, 304):
        server.begin(late(head(status)), second)
        try:
            client.acknowledge("ONE")
        except MeshError as error:
            assert isinstance(error, Refused)  # noqa: PT017 - either is right
        assert client.send("X26ABC3", "DPS", part()).message_id == "OF-THE-SECOND"


def test_a_chunked_encoding_of_a_message_is_whole_once_it_ends(patient: MeshClient, server: FaultServer) -> None:
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(BODY), BODY) for _ in range(2))
    server.begin(answer(200, PAGE), raw(head(200, "Transfer-Encoding: chunked"), pieces, b"0\r\n\r\n"), answer(200))
    assert receive(patient) == [BODY * 2]
    server.begin(answer(200, PAGE), raw(head(200, "Transfer-Encoding: chunked"), pieces))
    assert isinstance(timed(lambda: receive(patient)), Unavailable)
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


TAKEN = answer(202, b'{"message_id": "ONE"}')


def test_a_send_does_not_go_on_with_a_body_of_which_mesh_has_another_one_whole(
    client: MeshClient, server: FaultServer
) -> None:
    body = BODY[:3_000]
    server.begin(TAKEN, TAKEN, raw())  # the last part arrives, and its answer is lost
    stuck = timed(lambda: client.send_file("X26ABC3", "DPS", body, compress=False, chunk_size=1_000))
    assert stuck.resume
    server.begin(answer(423))
    with pytest.raises(ConfigurationError, match="not the one that MESH has"):
        client.send_file("X26ABC3", "DPS", body[:-5] + b"other", resume=stuck.resume)
    assert server.requests == []
    assert client.send_file("X26ABC3", "DPS", body, resume=stuck.resume).message_id == "ONE"


class FullOnce(io.BytesIO):
    """A body that cannot be read on once, as where the disk is full."""

    full = False

    def read(self, size: int | None = -1) -> bytes:
        if self.full:
            self.full = False
            raise OSError(28, "No space left on device")
        return super().read(size)


def test_a_send_that_the_disk_or_a_person_ended_says_where_it_goes_on(client: MeshClient, server: FaultServer) -> None:
    body = FullOnce(BODY[:3_000])

    def fill(done: int, _: int) -> None:
        body.full = done < 1_000

    def interrupt(done: int, _: int) -> None:
        if done > 1_000:
            raise KeyboardInterrupt

    for error, ends in ((OSError, fill), (KeyboardInterrupt, interrupt)):
        server.begin(TAKEN)
        body.seek(0)
        with pytest.raises(error) as raised:
            client.send_file("X26ABC3", "DPS", body, chunk_size=1_000, on_progress=ends)
        body.seek(0)
        assert raised.value.resume.part == 2  # type: ignore[attr-defined]
        assert client.send_file("X26ABC3", "DPS", body, resume=raised.value.resume).parts == 4  # type: ignore[attr-defined]


def test_a_file_that_is_rewritten_while_it_is_sent_never_goes_whole(
    client: MeshClient, server: FaultServer, tmp_path: Path
) -> None:
    file = tmp_path / "body"
    for compress in (True, False):
        file.write_bytes(BODY[:3_000])
        os.utime(file, (0, 0))

        def rewrite(done: int, _: int) -> None:
            if done >= 1_000:
                file.write_bytes(bytes(3_000))

        server.begin(TAKEN)
        with file.open("rb", buffering=0) as opened:
            error = timed(
                lambda: client.send_file(
                    "X26ABC3",
                    "DPS",
                    opened,
                    compress=compress,  # noqa: B023
                    chunk_size=1_000,
                    on_progress=rewrite,
                )
            )
        assert isinstance(error, ConfigurationError)
        assert "changed while it was sent" in str(error)
        assert error.resume is None
        assert not any(request.endswith(("/3", "/4")) for request in server.requests)


# -- connections


def test_connections_that_the_server_closes_while_they_idle_are_no_trouble(
    patient: MeshClient, server: FaultServer
) -> None:
    sent = raw(head(202, "Content-Length: 21"), b'{"message_id": "ONE"}')
    server.begin(sent)
    for number in range(1, 6):
        assert patient.send("X26ABC3", "DPS", part()).message_id == "ONE"
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


def test_a_process_that_forked_does_not_read_answers_to_the_other(client: MeshClient, server: FaultServer) -> None:
    def echo(line: Line) -> bool:
        said = line.read_body().decode() or "nothing"
        time.sleep(0.1)
        body = f'{{"message_id": "OF-{said}"}}'.encode()
        line.send(head(202, f"Content-Length: {len(body)}") + body)
        return True

    def send(name: bytes) -> str:
        try:
            return client.send("X26ABC3", "DPS", part(name)).message_id
        except MeshError as error:
            return str(error)

    server.begin(echo)
    client.handshake()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(theirs, send(b"CHILD").encode())
        finally:
            os._exit(0)
    os.close(theirs)
    assert send(b"PARENT") == "OF-PARENT"
    os.waitpid(child, 0)
    with os.fdopen(ours) as told:
        assert told.read() == "OF-CHILD"
    # The parent goes on, on the connection that it had.
    client.handshake()
    assert server.connections == 2


# -- deadlines of calls that make several requests, or none


def test_a_resolver_that_does_not_answer_ends_at_the_deadline(
    client: MeshClient, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    real = socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        over.wait(5)
        return real(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    server.begin(answer(200))
    try:
        assert "no connection was made" in str(timed(client.handshake))
    finally:
        over.set()


@pytest.mark.parametrize("refuses", [True, False])
def test_a_part_that_is_tried_again_and_again_ends_at_the_deadline(
    made: Certificates, server: FaultServer, refuses: bool
) -> None:
    server.begin(answer(503) if refuses else lambda line: line.server.over.wait(5))
    with connect(made, server, tries=60, timeout=(DEADLINE, DEADLINE / 2), pauses=(0.05, 0.05)) as client:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            client.send_chunk("ONE", 2, 2, part())
        # Each try on its own would take as long as a deadline, and 60 of them ten times as long as this.
        assert time.monotonic() - started < DEADLINE + MARGIN


def test_empty_pages_without_an_end_end_at_the_deadline(client: MeshClient, server: FaultServer) -> None:
    def empty(line: Line) -> bool | None:
        time.sleep(DEADLINE / 4)
        return page(following=f"continue_from={len(line.server.requests)}")(line)

    server.begin(empty)
    ids = client.inbox()
    assert isinstance(timed(lambda: next(ids)), Unavailable)


def test_pages_that_are_read_slowly_are_not_ended(client: MeshClient, server: FaultServer) -> None:
    server.begin(page("A", following="continue_from=A"), page("B"))
    ids = client.inbox()
    assert next(ids) == "A"
    time.sleep(DEADLINE * 1.5)
    assert list(ids) == ["B"]


def test_a_gzip_stream_that_never_holds_anything_ends_at_the_deadline(client: MeshClient, server: FaultServer) -> None:
    nothing = gzip.compress(b"") * 100

    def endless_members(line: Line) -> None:
        line.send(head(200, GZIP, "Transfer-Encoding: chunked"))
        while not line.server.over.is_set():
            line.send(b"%x\r\n%b\r\n" % (len(nothing), nothing))

    server.begin(endless_members)
    assert isinstance(timed(lambda: client.download("ONE").read(1)), Unavailable)


def test_tries_without_an_end_never_overflow_the_pause(made: Certificates, server: FaultServer) -> None:
    server.begin(answer(503))
    with connect(made, server, tries=1_200, deadline=30.0) as client, pytest.raises(Unavailable):
        client.handshake()
    assert len(server.requests) == 1_200


# -- a message that is sent on


def test_a_message_that_breaks_off_while_it_is_sent_on_was_not_sent(
    made: Certificates, client: MeshClient, server: FaultServer
) -> None:
    with FaultServer(made) as source, connect(made, source) as from_there:
        for broken in (answer(200, BODY[:500], length=len(BODY)), answer(503), answer(404)):
            source.begin(broken)
            server.begin(answer(202, b'{"message_id": "ONE"}'))
            sent_on = Part(lambda: from_there.download("ONE"), len(BODY))
            with pytest.raises(Unavailable, match=r"broke off while it was read.*nothing was sent"):
                client.send("X26ABC3", "DPS", sent_on)
            with pytest.raises(Unavailable, match="broke off"):
                client.send_chunk("ONE", 2, 2, sent_on)
