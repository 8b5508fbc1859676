"""What tracking says, whichever version answers, and what may go into a header."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from local import certificates
from nhs_mesh import ConfigurationError, Credentials, MeshClient, Tracking, TrackingStatus, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION_2 = {
    "message_id": "20220228174323222_ABCDEF",
    "local_id": "export-1-1",
    "workflow_id": "DPS_EXPORT",
    "filename": "vaccinations.csv",
    "expiry_time": "2022-03-05T17:43:23.222Z",
    "upload_timestamp": "2022-02-28T17:43:23.222000+00:00",
    "recipient": "X26ABC3",
    "recipient_name": "DPS",
    "status": "acknowledged",
    "status_success": True,
    "status_event": "TRANSFER",
    "status_timestamp": "2022-02-28T18:00:00",
    "status_description": "Transferred to recipient mailbox",
    "status_code": "00",
}
VERSION_1 = {
    "messageId": "20220228174323222_ABCDEF",
    "localId": "export-1-1",
    "workflowId": "DPS_EXPORT",
    "fileName": "vaccinations.csv",
    "expiryTime": "20220305174323",
    "uploadTimestamp": "20220228174323",
    "recipient": "X26ABC3",
    "status": "Acknowledged",
    "statusEvent": "TRANSFER",
    "statusTimestamp": "20220228180000",
    "statusDescription": "Transferred to recipient mailbox",
    "statusCode": "00",
}


@pytest.mark.parametrize("body", [VERSION_2, VERSION_1])
def test_tracking_reads_the_same_from_either_version(body: dict[str, Any]) -> None:
    tracking = Tracking.from_json(body)
    assert tracking.upload_timestamp
    assert tracking.expiry_time
    assert tracking == Tracking(
        message_id="20220228174323222_ABCDEF",
        status=TrackingStatus.ACKNOWLEDGED,
        local_id="export-1-1",
        workflow_id="DPS_EXPORT",
        filename="vaccinations.csv",
        recipient="X26ABC3",
        status_event="TRANSFER",
        status_code="00",
        status_description="Transferred to recipient mailbox",
        status_timestamp=datetime(2022, 2, 28, 18, tzinfo=UTC),
        upload_timestamp=tracking.upload_timestamp,
        expiry_time=tracking.expiry_time,
    )
    assert tracking.upload_timestamp.replace(microsecond=0) == datetime(2022, 2, 28, 17, 43, 23, tzinfo=UTC)
    assert tracking.expiry_time.replace(microsecond=0) == datetime(2022, 3, 5, 17, 43, 23, tzinfo=UTC)


@pytest.mark.parametrize("status", list(TrackingStatus))
def test_every_status_is_known_in_any_case(status: TrackingStatus) -> None:
    assert Tracking.from_json({"message_id": "M", "status": status.capitalize()}).status is status


def test_a_status_that_mesh_has_learned_since_is_kept_as_its_word() -> None:
    assert Tracking.from_json({"message_id": "M", "status": "Quarantined"}).status == "quarantined"


@pytest.mark.parametrize("text", ["", None, "soon", "2022-99-99T00:00:00", "99999999999999"])
def test_a_time_that_cannot_be_read_is_none(text: str | None) -> None:
    assert Tracking.from_json({"message_id": "M", "status": "accepted", "expiry_time": text}).expiry_time is None


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., MeshClient]:
    """Make a client of an address where nobody listens: a request would be Unavailable."""
    made = certificates.make(tmp_path_factory.mktemp("certificates"))
    tls: dict[str, Any] = {
        name: getattr(made, name) for name in ("certificate", "private_key", "passphrase", "ca_bundle")
    }

    def connect(base_url: str = "https://localhost:1", **options: Any) -> MeshClient:
        credentials = Credentials("X26ABC1", "password", "TestKey")
        return MeshClient(base_url, credentials, pauses=(0.0, 0.0), **tls, **options)

    return connect


@pytest.fixture(scope="module")
def client(connect: Callable[..., MeshClient]) -> Iterator[MeshClient]:
    with connect() as made_client:
        yield made_client


NAMES = ("to", "workflow_id", "filename", "local_id", "subject", "content_type", "checksum")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value", ["a\r\nMex-To: X26ABC2", "a\nb", "a\rb", "a\x00b", "a\x85b", "1 \u2013 2", "x" * 1025, " padded "]
)
def test_what_would_break_out_of_a_header_is_refused_before_anything_is_sent(
    client: MeshClient, name: str, value: str
) -> None:
    given: dict[str, Any] = {"to": "X26ABC3", "workflow_id": "DPS"} | {name: value}
    with pytest.raises(ConfigurationError, match=r"must be printable|must not begin|is no id"):
        client.send_file(body=b"body", **given)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"filename", "subject"}))
def test_an_accent_is_refused_where_nobody_writes_one(client: MeshClient, name: str) -> None:
    given: dict[str, Any] = {"to": "X26ABC3", "workflow_id": "DPS"} | {name: "café"}
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        client.send_file(body=b"body", **given)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_id_that_names_another_path_is_refused_before_anything_is_sent(client: MeshClient, name: str) -> None:
    for call in (client.download, client.acknowledge, client.track_by_local_id, client.search_workflow):
        with pytest.raises(ConfigurationError, match="is no id"):
            call(name)


@pytest.mark.parametrize("local_id", ["export/1", ".", ".."])
def test_a_local_id_that_mesh_could_not_be_asked_for_is_refused(client: MeshClient, local_id: str) -> None:
    with pytest.raises(ConfigurationError, match="is no id"):
        client.send_file("X26ABC3", "DPS", b"body", local_id=local_id)


@pytest.mark.parametrize("chunk_size", [-1, 0, 1, 127, 100_000_001])
def test_a_chunk_size_that_mesh_or_gzip_cannot_have_is_refused(client: MeshClient, chunk_size: int) -> None:
    with pytest.raises(ConfigurationError, match="128 to 100000000 bytes"):
        client.send_file("X26ABC3", "DPS", b"body", chunk_size=chunk_size)


@pytest.mark.parametrize("chunk", [-1, 0])
def test_a_chunk_before_the_first_is_refused(client: MeshClient, chunk: int) -> None:
    with pytest.raises(ConfigurationError, match="counted from 1"):
        client.download("MESSAGE", chunk=chunk)


def test_a_checksum_is_never_compared_with_what_it_is_not_of(client: MeshClient) -> None:
    for options in ({"chunk": 2}, {"decode": False}):
        with pytest.raises(ConfigurationError, match="a whole message, decoded"):
            client.download("MESSAGE", verify_checksum=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("unprintable", ["\ud800", "a\nb", "a\x00b"])
def test_what_cannot_be_asked_for_is_refused(client: MeshClient, unprintable: str) -> None:
    for call in (
        client.track,
        client.track_by_local_id,
        client.download,
        lambda text: list(client.inbox(workflow_filter=text)),
    ):
        with pytest.raises(ConfigurationError):
            call(unprintable)


WRONG_HOSTS = (
    "a b",
    "%zz",
    "a%20b",
    "a\x00b",
    "[zz]",
    "[::1",
    "local\thost",
    "h:99999",
    "h:x",
    "h/path",
    "h?x=1",
    "h#f",
    "",
)


@pytest.mark.parametrize("host", WRONG_HOSTS)
def test_what_is_no_address_is_refused_without_showing_it(connect: Callable[..., MeshClient], host: str) -> None:
    for options in ({"base_url": f"https://{host}"}, {"proxy": f"http://user:secret@{host}"}):
        with pytest.raises(ConfigurationError, match="address must be") as raised:
            connect(**options)
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "https://[::1]:1"},
        {"base_url": "HTTPS://LOCALHOST:1/"},
        {"proxy": "http://[::1]:1"},
        {"proxy": "http://user:p%40ss@127.0.0.1:1/"},
    ],
)
def test_an_address_where_nobody_listens_is_one(connect: Callable[..., MeshClient], options: dict[str, Any]) -> None:
    with connect(**options, tries=1) as client, pytest.raises(Unavailable, match="no connection was made"):
        client.handshake()
