"""What is tried again, what is not, and what is said where nobody can know."""

from __future__ import annotations

import io
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from local import certificates, children
from nhs_mesh import (
    MeshError,
    NotFound,
    Part,
    Refused,
    Retry,
    SendOutcomeUnknown,
    TrackingStatus,
    Unauthorised,
    Unavailable,
)
from tests.faults.nhs_mesh.proxy import (
    CLOSE_AFTERWARDS,
    FORWARD,
    LOSE_ANSWER,
    LOSE_REQUEST,
    REPLAY,
    STALL,
    Action,
    answer,
    cut_short,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from local.sandbox import Sandbox
    from nhs_mesh import MeshClient
    from tests.faults.nhs_mesh.proxy import Proxy

BODY = b"hello|world\n"
XML = b"<soap:Envelope/>"
#: Faults that another try may get over.
PASSING = {
    "lost request": LOSE_REQUEST,
    "lost answer": LOSE_ANSWER,
    "cut answer": cut_short(1),
    "reset answer": cut_short(1, reset=True),
    "stall": STALL,
    "425": answer(425),
    "429": answer(429),
    "502": answer(502, XML),
    "503": answer(503),
    "504": answer(504, XML),
}
#: Of those, the ones after which a first POST may have arrived.
UNCLEAR = {name: fault for name, fault in PASSING.items() if name not in {"425", "429"}} | {
    "500": answer(500, XML),
    "rubbish": answer(202, b"rubbish"),
    "no id": answer(202, b"{}"),
    "a list": answer(202, b"[]"),
    "an empty answer": answer(202),
}


def part(body: bytes = BODY) -> Part:
    return Part(lambda: io.BytesIO(body), len(body))


def send(client: MeshClient, local_id: str = "export-1-1", **options: Any) -> str:
    return client.send("X26ABC3", "DPS", part(), local_id=local_id, **options).message_id


def cases(faults: dict[str, Action]) -> list[Any]:
    return [pytest.param(fault, id=name) for name, fault in faults.items()]


# -- what is tried again


@pytest.mark.parametrize("fault", [case for case in cases(PASSING) if case.values[0].send is None])
def test_a_handshake_is_tried_again(client: MeshClient, proxy: Proxy, fault: Action) -> None:
    proxy.script = [fault]
    client.handshake()
    assert len(proxy.requests) == 2


@pytest.mark.parametrize("fault", cases(PASSING))
def test_a_get_is_tried_again(client: MeshClient, proxy: Proxy, fault: Action) -> None:
    proxy.script = [fault, fault]
    assert list(client.inbox()) == []
    assert len(proxy.requests) == 3


@pytest.mark.parametrize("fault", cases(PASSING))
def test_an_acknowledgement_is_tried_again(
    client: MeshClient, receiver: MeshClient, direct: MeshClient, proxy: Proxy, fault: Action
) -> None:
    message_id = send(direct)
    proxy.script = [fault]
    receiver.acknowledge(message_id)
    assert direct.track(message_id).status is TrackingStatus.ACKNOWLEDGED


@pytest.mark.parametrize("fault", cases(PASSING))
@pytest.mark.parametrize("number", [2, 3])
def test_a_later_part_is_tried_again_and_counts_once(
    client: MeshClient, receiver: MeshClient, proxy: Proxy, fault: Action, number: int
) -> None:
    body = bytes(range(256)) * 2
    proxy.script = [*[FORWARD] * (number - 1), fault]
    sent = client.send_file("X26ABC3", "DPS", body, compress=False, chunk_size=200)
    assert sent.parts == 3
    with receiver.download(sent.message_id) as message:
        assert message.read() == body


def test_a_complete_message_refuses_a_part_that_was_not_lost(client: MeshClient, direct: MeshClient) -> None:
    message_id = direct.send_file("X26ABC3", "DPS", bytes(300), compress=False, chunk_size=200).message_id
    with pytest.raises(Refused) as refused:
        client.send_chunk(message_id, 2, 2, part())
    assert refused.value.status == 423


def test_a_part_but_the_last_is_not_taken_for_arrived_where_the_message_is_complete(
    client: MeshClient, direct: MeshClient, proxy: Proxy
) -> None:
    message_id = direct.send_file("X26ABC3", "DPS", bytes(500), compress=False, chunk_size=200).message_id
    proxy.script = [LOSE_ANSWER]
    with pytest.raises(Refused):
        client.send_chunk(message_id, 2, 3, part())


def test_the_tries_come_to_an_end(client: MeshClient, proxy: Proxy, sleeps: list[float]) -> None:
    proxy.script = [answer(503)] * 100
    with pytest.raises(Unavailable, match="503"):
        client.count()
    assert len(proxy.requests) == 5
    assert len(sleeps) == 4


def test_pauses_grow_and_are_never_alike(make: Callable[..., MeshClient], proxy: Proxy, sleeps: list[float]) -> None:
    proxy.script = [answer(503)] * 100
    for _ in range(2):
        with pytest.raises(Unavailable):
            make().count()
    first, second = sleeps[:4], sleeps[4:]
    assert first != second
    for pauses in (first, second):
        for number, pause in enumerate(pauses):
            assert 0.25 * 2**number <= pause <= 0.5 * 2**number


@pytest.mark.parametrize("status", [400, 403, 404, 410, 417, 500, 301])
def test_a_clear_answer_is_not_asked_for_again(client: MeshClient, proxy: Proxy, status: int) -> None:
    proxy.script = [answer(status, Location="https://localhost:1/elsewhere")]
    with pytest.raises(MeshError):
        client.count()
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("body", [b"rubbish", b"[]", b"{}", b'{"messages": null}', b"null", b""])
def test_an_answer_that_cannot_be_read_is_unavailable(client: MeshClient, proxy: Proxy, body: bytes) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: list(client.inbox()),
        client.count,
        lambda: client.lookup("X26", "DPS"),
        lambda: client.search_workflow("DPS"),
    ]
    for call in calls:
        proxy.script = [answer(200, body)]
        with pytest.raises(Unavailable, match="cannot be read"):
            call()


# -- retries can be seen and set


def test_each_retry_is_logged_and_told_before_its_pause(
    make: Callable[..., MeshClient], proxy: Proxy, sleeps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Retry] = []
    proxy.script = [answer(503, Retry_After="7"), LOSE_ANSWER]
    with caplog.at_level("WARNING", "nhs_mesh"):
        assert list(make(on_retry=told.append).inbox()) == []
    assert [(retry.method, retry.path, retry.tries) for retry in told] == [
        ("GET", "X26ABC1/inbox", 1),
        ("GET", "X26ABC1/inbox", 2),
    ]
    assert [retry.pause for retry in told] == sleeps
    assert isinstance(told[0].error, Unavailable)
    assert told[0].error.retry_after == 7
    said = [record.getMessage() for record in caplog.records if record.name == "nhs_mesh"]
    assert said[0] == "GET X26ABC1/inbox failed (MESH answered 503); trying again in 7.0 s"
    assert "the connection to MESH broke" in said[1]
    assert "NHSMESH" not in caplog.text


def test_tries_and_pauses_are_as_they_were_set(
    make: Callable[..., MeshClient], proxy: Proxy, sleeps: list[float]
) -> None:
    proxy.script = [answer(503)] * 100
    with pytest.raises(Unavailable) as raised:
        make(tries=4, pauses=(1.0, 2.0)).count()
    assert raised.value.retry_after is None
    assert len(proxy.requests) == 4
    assert 0.5 <= sleeps[0] <= 1 <= sleeps[1] <= 2
    assert 1 <= sleeps[2] <= 2


def test_one_try_is_no_retry(make: Callable[..., MeshClient], proxy: Proxy, sleeps: list[float]) -> None:
    proxy.script = [answer(503)]
    with pytest.raises(Unavailable):
        make(tries=1).count()
    assert sleeps == []


# -- the first POST


@pytest.mark.parametrize("fault", cases(UNCLEAR))
def test_a_first_post_that_may_have_arrived_is_never_sent_again(
    client: MeshClient, direct: MeshClient, proxy: Proxy, fault: Action
) -> None:
    proxy.script = [fault]
    with pytest.raises(SendOutcomeUnknown, match="may have been sent") as unknown:
        send(client)
    assert unknown.value.local_id == "export-1-1"
    assert proxy.paths == ["POST /X26ABC1/outbox"]
    # And so it was, or was not: asking tells.
    if fault.forward:
        assert direct.track_by_local_id("export-1-1").status is TrackingStatus.ACCEPTED
    else:
        with pytest.raises(NotFound):
            direct.track_by_local_id("export-1-1")


def test_a_lost_first_part_of_a_file_is_not_sent_again(client: MeshClient, proxy: Proxy) -> None:
    proxy.script = [LOSE_ANSWER]
    with pytest.raises(SendOutcomeUnknown) as unknown:
        client.send_file("X26ABC3", "DPS", bytes(500), compress=False, chunk_size=200, local_id="export-1-1")
    assert unknown.value.local_id == "export-1-1"
    assert len(proxy.requests) == 1


def test_a_first_post_goes_on_the_connection_that_is_there(client: MeshClient, proxy: Proxy) -> None:
    client.handshake()
    for number in range(3):
        assert send(client, f"export-{number}-1")
    assert {request.connection for request in proxy.requests} == {1}


@pytest.mark.parametrize("idle", [0.0, 3.0])
def test_a_first_post_on_a_connection_that_the_server_closed_is_sent_on_a_new_one(
    client: MeshClient, proxy: Proxy, idle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.script = [FORWARD if idle else CLOSE_AFTERWARDS]
    client.handshake()
    time.sleep(0.1)
    if idle:
        # It has idled so long that the server may close it at any moment.
        monkeypatch.setattr("nhs_mesh.transport._TRUSTED_SECONDS", 0.05)
    assert send(client)
    assert [request.connection for request in proxy.requests] == [1, 2]


@pytest.mark.parametrize("status", [425, 429])
def test_a_first_post_that_was_turned_away_is_sent_again(
    client: MeshClient, proxy: Proxy, direct: MeshClient, status: int
) -> None:
    proxy.script = [answer(status), answer(status)]
    message_id = send(client)
    assert len(proxy.requests) == 3
    assert direct.track_by_local_id("export-1-1").message_id == message_id


def test_a_first_post_that_is_turned_away_for_good_was_not_sent(
    client: MeshClient, proxy: Proxy, direct: MeshClient
) -> None:
    proxy.script = [answer(429)] * 100
    with pytest.raises(Unavailable, match="nothing was sent"):
        send(client)
    with pytest.raises(NotFound):
        direct.track_by_local_id("export-1-1")


def test_a_first_post_that_is_lost_after_it_was_turned_away_is_unknown(client: MeshClient, proxy: Proxy) -> None:
    proxy.script = [answer(429), LOSE_ANSWER]
    with pytest.raises(SendOutcomeUnknown):
        send(client)
    assert len(proxy.requests) == 2


def test_without_a_connection_nothing_was_sent(make: Callable[..., MeshClient], sleeps: list[float]) -> None:
    client = make(base_url=f"https://localhost:{children.free_port()}")
    with pytest.raises(Unavailable, match="no connection was made; nothing was sent"):
        send(client)
    assert len(sleeps) == 4


def test_a_host_that_does_not_exist_gets_nothing(make: Callable[..., MeshClient]) -> None:
    with pytest.raises(Unavailable, match="no connection was made; nothing was sent"):
        send(make(base_url="https://mesh.invalid"))


@pytest.fixture
def hangs_up() -> Iterator[str]:
    """A server that ends each connection before TLS is agreed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    listener.accept()[0].close()
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_connection_that_breaks_before_tls_is_agreed_carried_nothing(
    make: Callable[..., MeshClient], hangs_up: str
) -> None:
    with pytest.raises(Unavailable, match="no connection was made; nothing was sent"):
        send(make(base_url=hangs_up))


def test_a_server_that_never_agrees_on_tls_got_nothing(make: Callable[..., MeshClient]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = make(base_url=f"https://localhost:{listener.getsockname()[1]}", timeout=(0.2, 0.2))
        with pytest.raises(Unavailable, match="nothing was sent"):
            send(client)


def test_a_client_certificate_that_mesh_does_not_take_is_named_and_nothing_was_sent(
    make: Callable[..., MeshClient], proxy: Proxy, tmp_path: Path
) -> None:
    stranger = certificates.make(tmp_path)
    client = make(certificate=stranger.certificate, private_key=stranger.private_key, passphrase=stranger.passphrase)
    with pytest.raises(Unavailable, match=r"does not take the client certificate.*nothing was sent"):
        send(client)
    assert proxy.requests == []


# -- how long


def test_retry_after_in_seconds_is_honoured(client: MeshClient, proxy: Proxy, sleeps: list[float]) -> None:
    proxy.script = [answer(429, Retry_After="7"), answer(503, Retry_After="11")]
    client.handshake()
    assert sleeps == [7, 11]


def test_retry_after_as_a_date_is_honoured(
    client: MeshClient, proxy: Proxy, sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    monkeypatch.setattr("nhs_mesh.transport._now", lambda: now)
    later = now + timedelta(seconds=42)
    proxy.script = [
        answer(503, Retry_After=format_datetime(later, usegmt=True)),
        answer(503, Retry_After=later.strftime("%a, %d %b %Y %H:%M:%S -0000")),
        answer(503, Retry_After=format_datetime(now - timedelta(days=1), usegmt=True)),
    ]
    client.handshake()
    assert sleeps[:2] == [42, 42]
    # One that is over already does not make the client hurry.
    assert 0 < sleeps[2] < 42


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "Wed, 99 Foo 2022 99:99:99 GMT"])
def test_a_retry_after_that_says_nothing_is_passed_over(
    client: MeshClient, proxy: Proxy, sleeps: list[float], value: str
) -> None:
    proxy.script = [answer(503, Retry_After=value)]
    client.handshake()
    assert 0.25 <= sleeps[0] <= 0.5


def test_a_retry_after_beyond_the_deadline_ends_the_tries_at_once(
    make: Callable[..., MeshClient], proxy: Proxy, sleeps: list[float]
) -> None:
    proxy.script = [answer(429, Retry_After="3600")]
    with pytest.raises(Unavailable, match="429") as raised:
        make(deadline=60).handshake()
    assert raised.value.retry_after == 3600
    proxy.script = [answer(429, Retry_After="3600")]
    with pytest.raises(Unavailable, match="nothing was sent") as raised:
        send(make(deadline=60))
    assert raised.value.retry_after == 3600
    assert sleeps == []
    assert len(proxy.requests) == 2


def test_the_deadline_ends_the_tries(make: Callable[..., MeshClient], proxy: Proxy) -> None:
    proxy.script = [STALL] * 10
    started = time.monotonic()
    with pytest.raises(Unavailable, match="in time"):
        make(deadline=1, timeout=(5.0, 60.0)).handshake()
    assert time.monotonic() - started < 3


# -- connections


def test_one_connection_carries_many_requests(client: MeshClient, proxy: Proxy) -> None:
    for _ in range(5):
        client.handshake()
        client.count()
    assert {request.connection for request in proxy.requests} == {1}


def test_a_connection_that_the_server_closed_while_it_idled_is_made_anew(
    client: MeshClient, proxy: Proxy, sleeps: list[float]
) -> None:
    proxy.script = [CLOSE_AFTERWARDS]
    client.handshake()
    time.sleep(0.1)
    client.handshake()
    assert [request.connection for request in proxy.requests] == [1, 2]
    assert sleeps == []


def test_a_connection_that_closes_just_when_it_is_used_is_made_anew(client: MeshClient, proxy: Proxy) -> None:
    client.handshake()
    proxy.script = [LOSE_REQUEST]
    client.count()
    assert [request.connection for request in proxy.requests] == [1, 1, 2]


# -- tokens


def test_a_token_never_travels_twice(client: MeshClient, receiver: MeshClient, proxy: Proxy) -> None:
    proxy.script = [answer(503), LOSE_ANSWER, FORWARD, answer(429), FORWARD, LOSE_ANSWER, FORWARD, LOSE_REQUEST]
    client.handshake()
    sent = client.send_file("X26ABC3", "DPS", bytes(500), compress=False, chunk_size=200)
    with receiver.download(sent.message_id) as message:
        assert message.read() == bytes(500)
    assert len(proxy.tokens) > 10
    assert all(token.startswith("NHSMESH X26ABC") for token in proxy.tokens)
    assert len(set(proxy.tokens)) == len(proxy.tokens)


def test_requests_that_the_network_doubles_do_no_harm(client: MeshClient, receiver: MeshClient, proxy: Proxy) -> None:
    proxy.script = [FORWARD, REPLAY, FORWARD]
    sent = client.send_file("X26ABC3", "DPS", bytes(500), compress=False, chunk_size=200)
    proxy.script = [REPLAY, REPLAY]
    assert list(receiver.inbox()) == [sent.message_id]
    receiver.acknowledge(sent.message_id)


# -- the clock


@pytest.mark.parametrize(("hours", "said"), [(3, "3.0 hours behind"), (-3, "3.0 hours ahead")])
def test_a_clock_that_is_hours_off_is_named(client: MeshClient, proxy: Proxy, hours: int, said: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
    proxy.script = [answer(403, Date=date)]
    with pytest.raises(Unauthorised, match="it looks like the clock") as raised:
        client.handshake()
    assert said in str(raised.value)


@pytest.mark.parametrize("date", ["", "rubbish", "{now:%a, %d %b %Y %H:%M:%S} -0000", "Wed, 99 Foo 2022 99:99:99 GMT"])
def test_a_date_that_says_nothing_leaves_it_unauthorised(
    client: MeshClient, proxy: Proxy, date: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    monkeypatch.setattr("nhs_mesh.transport._now", lambda: now)
    proxy.script = [answer(403, Date=date.format(now=now))]
    with pytest.raises(Unauthorised, match="wrong mailbox id"):
        client.handshake()


def test_no_error_shows_a_token_a_password_or_a_key(client: MeshClient, proxy: Proxy, sandbox: Sandbox) -> None:
    secrets = (sandbox.password, sandbox.shared_key, sandbox.certificates.passphrase, "NHSMESH")
    for fault in (*PASSING.values(), *UNCLEAR.values(), answer(403), answer(404), answer(417)):
        proxy.script = [fault] * 5
        with pytest.raises(MeshError) as raised:
            send(client)
        error: BaseException | None = raised.value
        said = ""
        while error:
            said += f"{error!r} {error} "
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        said = said.replace("wrong mailbox id, password or shared key", "")
        assert not any(secret in said for secret in secrets)
