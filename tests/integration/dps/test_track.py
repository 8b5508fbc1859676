"""Promises of tracking, over NHS England's sandbox and moto's server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dps.ledger import Status
from tests.integration.dps.world import World, row, upload_of

if TYPE_CHECKING:
    from collections.abc import Callable


def sent(world: World) -> None:
    world.upload(upload_of(row(1), row(2, "MenACWY")))
    world.export()


def test_a_file_that_nobody_has_picked_up_stays_accepted(world: World) -> None:
    sent(world)
    answer = world.track()
    assert answer["status"] == "ok"
    assert {(e["export_id"], e["status"]) for e in answer["exports"]} == {
        ("hpv-1", "accepted"),
        ("menacwy-1", "accepted"),
    }


def test_a_file_that_dps_has_picked_up_is_acknowledged(world: World) -> None:
    sent(world)
    world.acknowledge()
    answer = world.track()
    assert {(e["export_id"], e["status"]) for e in answer["exports"]} == {
        ("hpv-1", "acknowledged"),
        ("menacwy-1", "acknowledged"),
    }
    assert world.ledger.get("hpv", 1).acknowledged_at is not None
    assert world.track()["exports"] == []


def test_a_report_marks_the_export_it_is_about_and_is_acknowledged(world: World, report: Callable[[str], None]) -> None:
    sent(world)
    report(world.ledger.get("hpv", 1).message_id)
    answer = world.track()
    assert answer["reports"] == 1
    assert world.ledger.get("hpv", 1).status is Status.UNDELIVERED
    assert (world.ledger.get("hpv", 1).error or {})["code"] == "14"
    assert world.ledger.get("menacwy", 1).status is Status.ACCEPTED
    assert list(world.client.inbox()) == []


def test_an_undelivered_export_is_sent_again_the_next_night_as_another_file(
    world: World, report: Callable[[str], None]
) -> None:
    sent(world)
    first = world.ledger.get("hpv", 1)
    report(first.message_id)
    world.track()
    world.next_night()
    again = world.ledger.get("hpv", 1)
    assert (again.status, again.attempt) == (Status.ACCEPTED, 2)
    assert again.message_id != first.message_id
    assert again.filename != first.filename


def test_a_report_about_somebody_elses_message_marks_nothing(world: World, report: Callable[[str], None]) -> None:
    sent(world)
    report("0123456789ABCDEF0123456789ABCDEF")
    assert world.track()["reports"] == 1
    assert world.ledger.get("hpv", 1).status is Status.ACCEPTED


def test_messages_that_are_no_reports_are_left_in_the_inbox(world: World) -> None:
    import io

    from mesh import Part

    part = Part(open=lambda: io.BytesIO(b"hello"), size=5, content_encoding=None)
    message_id = world.receiver.send(part, to="X26ABC1", workflow_id="letters", filename="hello.txt")
    assert world.track()["reports"] == 0
    assert list(world.client.inbox()) == [message_id]
    world.client.acknowledge(message_id)
