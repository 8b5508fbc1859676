"""Every endpoint of MESH, asked of NHS England's sandbox over mutual TLS."""

from __future__ import annotations

import gzip
import io
import shutil
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from local import certificates
from nhs_mesh import (
    Credentials,
    MeshClient,
    MeshError,
    MessageType,
    NotFound,
    NotUnique,
    Part,
    Refused,
    SendOutcomeUnknown,
    TrackingStatus,
    Unauthorised,
    Unavailable,
)

if TYPE_CHECKING:
    from pathlib import Path

    from local.sandbox import Sandbox


def part(body: bytes, *, compressed: bool = False) -> Part:
    sent = gzip.compress(body) if compressed else body
    return Part(lambda: io.BytesIO(sent), len(sent), "gzip" if compressed else None)


def test_a_handshake_succeeds(sender: MeshClient) -> None:
    sender.handshake()


def test_an_empty_inbox_has_no_messages(receiver: MeshClient) -> None:
    assert list(receiver.inbox()) == []
    assert receiver.count() == 0


def test_a_sent_message_arrives_with_all_that_was_said_of_it(sender: MeshClient, receiver: MeshClient) -> None:
    message_id = sender.send(
        "X26ABC3",
        "DPS_EXPORT",
        part(b"hello|world\n", compressed=True),
        filename="vaccinations.csv",
        local_id="export-1-1",
        subject="a subject",
        content_type="text/csv",
        checksum="SHA-256 0123",
    ).message_id
    assert list(receiver.inbox()) == [message_id]
    assert receiver.count() == 1
    with receiver.download(message_id) as message:
        assert message.message_id == message_id
        assert message.message_type is MessageType.DATA
        assert not message.is_report
        assert message.sender == "X26ABC1"
        assert message.recipient == "X26ABC3"
        assert message.workflow_id == "DPS_EXPORT"
        assert message.filename == "vaccinations.csv"
        assert message.local_id == "export-1-1"
        assert message.subject == "a subject"
        assert (message.content_type or "").startswith("text/csv")
        assert message.checksum == "SHA-256 0123"
        assert message.chunks == 1
        assert message.read() == b"hello|world\n"
        assert message.read() == b""


def test_an_acknowledged_message_leaves_the_inbox_and_its_sender_learns_of_it(
    sender: MeshClient, receiver: MeshClient
) -> None:
    message_id = sender.send("X26ABC3", "DPS", part(b"body")).message_id
    assert sender.track(message_id).status is TrackingStatus.ACCEPTED
    receiver.acknowledge(message_id)
    assert list(receiver.inbox()) == []
    assert sender.track(message_id).status is TrackingStatus.ACKNOWLEDGED
    receiver.acknowledge(message_id)  # a second time does no harm


def test_the_inbox_is_fetched_page_by_page_when_it_is_needed(sender: MeshClient, receiver: MeshClient) -> None:
    sent = [sender.send("X26ABC3", "DPS", part(b"x")).message_id for _ in range(25)]
    inbox = receiver.inbox(page_size=10)
    first = list(islice(inbox, 10))
    late = sender.send("X26ABC3", "DPS", part(b"x")).message_id
    found = first + list(inbox)
    assert found == [*sent, late]


def test_the_inbox_is_filtered_by_workflow(sender: MeshClient, receiver: MeshClient) -> None:
    sent = {
        workflow: sender.send("X26ABC3", workflow, part(b"x")).message_id
        for workflow in ("DPS_EXPORT", "DPS_EXPORT_ACK", "OTHER")
    }
    assert list(receiver.inbox(workflow_filter="DPS_EXPORT")) == [sent["DPS_EXPORT"]]
    assert set(receiver.inbox(workflow_filter="DPS*")) == {sent["DPS_EXPORT"], sent["DPS_EXPORT_ACK"]}
    assert list(receiver.inbox(workflow_filter="!DPS*")) == [sent["OTHER"]]


def test_a_filter_holds_for_every_page(sender: MeshClient, receiver: MeshClient) -> None:
    wanted = []
    for _ in range(12):
        wanted.append(sender.send("X26ABC3", "A & B", part(b"x")).message_id)
        sender.send("X26ABC3", "C", part(b"x"))
    assert list(receiver.inbox(workflow_filter="A & B", page_size=10)) == wanted


def test_a_message_of_two_parts_is_delivered_with_the_second(sender: MeshClient, receiver: MeshClient) -> None:
    message_id = sender.send(
        "X26ABC3", "DPS", part(b"one, ", compressed=True), parts=2, local_id="export-1-1"
    ).message_id
    assert sender.track(message_id).status is TrackingStatus.UPLOADING
    assert sender.track_by_local_id("export-1-1").status is TrackingStatus.UPLOADING
    assert list(receiver.inbox()) == []
    sender.send_chunk(message_id, 2, 2, part(b"two", compressed=True))
    assert sender.track(message_id).status is TrackingStatus.ACCEPTED
    with receiver.download(message_id) as message:
        assert message.chunks == 2
        assert message.read() == b"one, two"


def test_a_part_for_a_complete_message_is_refused(sender: MeshClient) -> None:
    message_id = sender.send_file("X26ABC3", "DPS", bytes(300), compress=False, chunk_size=200).message_id
    with pytest.raises(Refused) as refused:
        sender.send_chunk(message_id, 2, 2, part(b"two"))
    assert refused.value.status == 423


def test_a_part_for_an_unknown_message_is_not_found(sender: MeshClient) -> None:
    with pytest.raises(NotFound):
        sender.send_chunk("NOSUCHMESSAGE", 2, 2, part(b"two"))


def test_tracking_tells_the_same_by_either_id(sender: MeshClient) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    message_id = sender.send(
        "X26ABC3", "DPS", part(b"x"), local_id="export 1-1", filename="vaccinations.csv"
    ).message_id
    by_id, by_local_id = sender.track(message_id), sender.track_by_local_id("export 1-1")
    for tracking in (by_id, by_local_id):
        assert tracking.message_id == message_id
        assert tracking.local_id == "export 1-1"
        assert tracking.workflow_id == "DPS"
        assert tracking.filename == "vaccinations.csv"
        assert tracking.recipient == "X26ABC3"
        assert tracking.status is TrackingStatus.ACCEPTED
        assert tracking.upload_timestamp
        assert before < tracking.upload_timestamp < datetime.now(UTC) + timedelta(minutes=1)


def test_two_messages_of_one_local_id_are_not_unique(sender: MeshClient) -> None:
    for _ in range(2):
        sender.send("X26ABC3", "DPS", part(b"x"), local_id="twice")
    with pytest.raises(NotUnique, match="twice") as raised:
        sender.track_by_local_id("twice")
    assert raised.value.local_id == "twice"


def test_what_was_never_sent_is_not_found(sender: MeshClient) -> None:
    for call in (sender.track, sender.track_by_local_id, sender.download, sender.acknowledge):
        with pytest.raises(NotFound):
            call("NEVERSENT")


def test_a_message_for_somebody_else_is_not_shown(sender: MeshClient, sandbox: Sandbox) -> None:
    message_id = sender.send("X26ABC3", "DPS", part(b"x")).message_id
    with sandbox.client("X26ABC2") as stranger, pytest.raises(MeshError):
        stranger.download(message_id)


def test_an_unknown_recipient_is_refused_with_mesh_s_code(sender: MeshClient) -> None:
    with pytest.raises(Refused, match="417: 12 Unregistered to address") as refused:
        sender.send("NOBODY", "DPS", part(b"x"), local_id="export-1-1")
    assert refused.value.code == "12"
    assert refused.value.status == 417
    assert refused.value.description == "Unregistered to address"
    assert refused.value.event == "SEND"
    with pytest.raises(NotFound):
        sender.track_by_local_id("export-1-1")


def test_mailboxes_are_found_by_organisation_and_by_workflow(sender: MeshClient) -> None:
    found = sender.lookup("X26", "TEST_WORKFLOW")
    assert {each.mailbox_id for each in found} == {"X26ABC2"}
    assert all(each.mailbox_name for each in found)
    everyone = {"X26ABC1", "X26ABC2", "X26ABC3"}
    assert {each.mailbox_id for each in sender.search_workflow("TEST_WORKFLOW2")} == everyone
    assert sender.lookup("NOORG", "TEST_WORKFLOW") == []
    assert sender.search_workflow("NO-SUCH-WORKFLOW") == []


def test_a_report_says_which_message_failed_and_why(sender: MeshClient, sandbox: Sandbox) -> None:
    message_id = sender.send("X26ABC3", "DPS", part(b"x"), local_id="export-1-1").message_id
    sandbox.admin(
        "POST",
        "/messageexchange/admin/report",
        {
            "mailbox_id": "X26ABC1",
            "code": "14",
            "description": "Message not collected by recipient after 5 days",
            "workflow_id": "DPS",
            "subject": "NDR",
            "local_id": "export-1-1",
            "file_name": "report.dat",
            "linked_message_id": message_id,
        },
    )
    (report_id,) = sender.inbox()
    with sender.download(report_id) as report:
        assert report.is_report
        assert report.message_type is MessageType.REPORT
        assert report.linked_message_id == message_id
        assert report.local_id == "export-1-1"
        assert report.workflow_id == "DPS"
        assert report.status_code == "14"
        assert report.status_description == "Message not collected by recipient after 5 days"
        assert report.status_timestamp
        assert report.read() == b""
    sender.acknowledge(report_id)
    assert list(sender.inbox()) == []


def test_a_message_that_was_not_read_to_its_end_may_be_closed(sender: MeshClient, receiver: MeshClient) -> None:
    message_id = sender.send("X26ABC3", "DPS", part(bytes(5_000_000))).message_id
    for _ in range(15):  # more than the pool has connections
        with receiver.download(message_id) as message:
            assert message.read(10) == bytes(10)
    with receiver.download(message_id) as message:
        target = io.BytesIO()
        shutil.copyfileobj(message, target)
        assert target.getvalue() == bytes(5_000_000)


@pytest.mark.parametrize(("mailbox", "password"), [("X26ABC1", "not this one"), ("NOBODY", "password")])
def test_wrong_credentials_are_unauthorised(sandbox: Sandbox, mailbox: str, password: str) -> None:
    made = sandbox.certificates
    with MeshClient(
        sandbox.base_url,
        Credentials(mailbox, password, sandbox.shared_key),
        certificate=made.certificate,
        private_key=made.private_key,
        passphrase=made.passphrase,
        ca_bundle=made.ca_bundle,
    ) as client:
        with pytest.raises(Unauthorised, match="looks like a wrong mailbox id, password or shared key") as raised:
            client.handshake()
        with pytest.raises(Unauthorised):
            client.send("X26ABC3", "DPS", part(b"x"), local_id="export-1-1")
    for secret in ("NHSMESH", "not this one", sandbox.shared_key):
        assert secret not in str(raised.value)


def test_a_client_certificate_of_another_ca_cannot_connect_and_sends_nothing(
    sandbox: Sandbox, sender: MeshClient, tmp_path: Path
) -> None:
    stranger = certificates.make(tmp_path)
    with sandbox.client(
        certificate=stranger.certificate,
        private_key=stranger.private_key,
        passphrase=stranger.passphrase,
        pauses=(0.0, 0.0),
    ) as client:
        with pytest.raises(Unavailable, match="does not take the client certificate"):
            client.handshake()
        # The sandbox hangs up without a word, so that nobody can know; what is likely is said.
        with pytest.raises((Unavailable, SendOutcomeUnknown), match="does not take the client certificate"):
            client.send("X26ABC3", "DPS", part(b"x"), local_id="export-1-1")
    with pytest.raises(NotFound):
        sender.track_by_local_id("export-1-1")


def test_a_server_certificate_of_another_ca_is_not_trusted(sandbox: Sandbox, tmp_path: Path) -> None:
    other = certificates.make(tmp_path)
    with sandbox.client(ca_bundle=other.ca_bundle) as client:
        with pytest.raises(Unavailable, match="does not belong to the CA bundle"):
            client.handshake()
        with pytest.raises(Unavailable, match="nothing was sent"):
            client.send("X26ABC3", "DPS", part(b"x"))


def test_a_sandbox_may_go_unverified(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.client(ca_bundle=certificates.make(tmp_path).ca_bundle, verify=False) as client:
        client.handshake()


def test_proxies_and_cas_of_the_environment_are_left_alone(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with sandbox.client() as client:
        client.handshake()


def test_a_closed_client_may_be_used_again(sandbox: Sandbox) -> None:
    client = sandbox.client()
    client.close()
    client.handshake()
    client.close()
