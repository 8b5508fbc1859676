"""What the use cases rely on of MESH: the same in memory as over NHS England's sandbox."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING

import pytest

from nhs_mesh import NotFound, NotUnique, Part, Refused, SendOutcomeUnknown, TrackingStatus, Unavailable
from tests.usecases.memory import MemoryMesh
from tests.usecases.world import DPS, OURS, WORKFLOW

if TYPE_CHECKING:
    from tests.usecases.world import World

pytestmark = pytest.mark.parametrize("clock", ["noon"], indirect=True)


def part(body: bytes, encoding: str | None = None) -> Part:
    return Part(lambda: io.BytesIO(body), len(body), content_encoding=encoding)


def send(world: World, body: bytes = b"hello", local_id: str = "hpv-1-1", parts: int = 1) -> str:
    sent = world.client.send(DPS, WORKFLOW, part(body), parts=parts, filename="a.csv", local_id=local_id)
    return str(sent.message_id)


def test_a_message_arrives_with_what_its_sender_said_of_it(world: World) -> None:
    message_id = send(world)
    assert list(world.receiver.inbox()) == [message_id]
    with world.receiver.download(message_id) as message:
        assert message.read() == b"hello"
        assert (message.sender, message.recipient, message.workflow_id) == (OURS, DPS, WORKFLOW)
        assert (message.filename, message.local_id, message.is_report) == ("a.csv", "hpv-1-1", False)


def test_messages_wait_in_the_order_in_which_they_were_sent(world: World) -> None:
    sent = [send(world, local_id=f"hpv-{n}-1") for n in range(3)]
    assert list(world.receiver.inbox()) == sent
    assert list(world.client.inbox()) == []


def test_a_message_of_several_parts_waits_once_it_is_complete(world: World) -> None:
    message_id = send(world, b"first ", parts=2)
    assert list(world.receiver.inbox()) == []
    assert world.client.track(message_id).status == TrackingStatus.UPLOADING
    world.client.send_chunk(message_id, 2, 2, part(b"second"))
    assert list(world.receiver.inbox()) == [message_id]
    assert world.client.track(message_id).status == TrackingStatus.ACCEPTED
    with world.receiver.download(message_id) as message:
        assert message.read() == b"first second"


def test_gzip_is_undone_on_the_way(world: World) -> None:
    body = gzip.compress(b"hello")
    message_id = world.client.send(DPS, WORKFLOW, part(body, "gzip"), local_id="hpv-1-1").message_id
    with world.receiver.download(message_id) as message:
        assert message.read() == b"hello"


def test_a_part_sent_again_takes_its_own_place_until_the_message_is_complete(world: World) -> None:
    message_id = send(world, b"1", parts=3)
    for number, body in ((2, b"2"), (2, b"2"), (3, b"3")):
        world.client.send_chunk(message_id, number, 3, part(body))
    with world.receiver.download(message_id) as message:
        assert message.read() == b"123"
    for number in (2, 3):
        with pytest.raises(Refused) as refused:
            world.client.send_chunk(message_id, number, 3, part(b"x"))
        assert refused.value.status == 423


def test_a_message_is_acknowledged_and_its_sender_learns_of_it(world: World) -> None:
    message_id = send(world)
    world.receiver.acknowledge(message_id)
    assert list(world.receiver.inbox()) == []
    assert world.client.track(message_id).status == TrackingStatus.ACKNOWLEDGED


def test_a_message_is_found_by_its_local_id(world: World) -> None:
    message_id = send(world)
    found = world.client.track_by_local_id("hpv-1-1")
    assert (found.message_id, found.status) == (message_id, TrackingStatus.ACCEPTED)
    assert (found.local_id, found.filename, found.recipient) == ("hpv-1-1", "a.csv", DPS)


def test_a_local_id_that_two_messages_bear_tells_neither(world: World) -> None:
    send(world)
    send(world)
    with pytest.raises(NotUnique):
        world.client.track_by_local_id("hpv-1-1")


def test_what_is_not_there_is_not_found(world: World) -> None:
    send(world)
    with pytest.raises(NotFound):
        world.client.track_by_local_id("hpv-2-1")
    with pytest.raises(NotFound):
        world.client.track("20261123030618999999_ABCDEF")
    with pytest.raises(NotFound):
        world.receiver.download("20261123030618999999_ABCDEF")


def test_a_message_to_nobody_is_refused(world: World) -> None:
    with pytest.raises(Refused) as refused:
        world.client.send("NOBODY", WORKFLOW, part(b"hello"), local_id="hpv-1-1")
    assert (refused.value.status, refused.value.code) == (417, "12")
    with pytest.raises(NotFound):
        world.client.track_by_local_id("hpv-1-1")


def test_a_report_names_the_message_that_it_is_about(world: World) -> None:
    message_id = send(world)
    world.report(message_id)
    [report_id] = world.client.inbox()
    with world.client.download(report_id) as report:
        assert (report.is_report, report.linked_message_id, report.status_code) == (True, message_id, "14")


@pytest.mark.usefixtures("clock")
def test_a_lost_answer_leaves_the_message_sent_and_a_failure_does_not() -> None:
    """In memory only: this is what tests of lost answers rest on."""
    mesh = MemoryMesh(OURS, DPS)
    ours, dps = mesh.mailbox(OURS), mesh.mailbox(DPS)
    mesh.fail("send", Unavailable("no answer"))
    with pytest.raises(Unavailable):
        ours.send(DPS, WORKFLOW, part(b"1"), local_id="hpv-1-1")
    assert list(dps.inbox()) == []
    mesh.lose_answer("send")
    with pytest.raises(SendOutcomeUnknown) as unknown:
        ours.send(DPS, WORKFLOW, part(b"1"), parts=2, local_id="hpv-1-1")
    message_id = ours.track_by_local_id(unknown.value.local_id).message_id
    mesh.lose_answer("send_chunk")
    with pytest.raises(Unavailable):
        ours.send_chunk(message_id, 2, 2, part(b"2"))
    mesh.lose_answer("acknowledge")
    with pytest.raises(Unavailable):
        dps.acknowledge(message_id)
    assert ours.track(message_id).status == TrackingStatus.ACKNOWLEDGED
    assert mesh.calls.count("send") == 2
