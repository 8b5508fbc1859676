"""Promises of tracking, over NHS England's sandbox and moto's server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from nhs_mesh import Credentials, MeshClient, Unauthorised
from tests.usecases.world import World, row, upload_of
from vaccinations.aws.ledger import Ledger, Status
from vaccinations.jobs.export import file_names
from vaccinations.jobs.track import Track
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.sandbox import Sandbox


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

    from nhs_mesh import Part

    part = Part(open=lambda: io.BytesIO(b"hello"), size=5, content_encoding=None)
    message_id = world.receiver.send(part, to="X26ABC1", workflow_id="letters", filename="hello.txt")
    assert world.track()["reports"] == 0
    assert list(world.client.inbox()) == [message_id]
    world.client.acknowledge(message_id)


def metrics(written: str) -> dict[str, float]:
    """Return the metrics in what was written, by name, and by programme where they have one."""
    found = {}
    for line in written.splitlines():
        document = json.loads(line)
        for directive in document.get("_aws", {}).get("CloudWatchMetrics", []):
            for metric in directive["Metrics"]:
                programme = f" {document['programme']}" if "programme" in document else ""
                [found[metric["Name"] + programme]] = document[metric["Name"]]
    return found


def test_each_run_tells_how_much_waits_and_for_how_long(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.ledger = Ledger(world.ledger._dynamodb, world.settings.exports_table, clock=world.clock)
    world.upload(upload_of(row(1), row(2), row(3, "MenACWY")))
    world.clock.forward(hours=3)
    capsys.readouterr()
    world.track()
    told = metrics(capsys.readouterr().out)
    assert (told["OldestWaitingHours"], told["OldestPendingHours"], told["OldestUnacknowledgedHours"]) == (3, 0, 0)
    assert (told["RecordsWaiting hpv"], told["RecordsWaiting menacwy"], told["RecordsWaiting flu"]) == (2, 1, 0)
    world.export(programme="menacwy")
    world.ledger.seal(world.ledger.get("hpv", 1), file_names(PROGRAMMES["hpv"], world.settings))
    world.clock.forward(hours=7)
    capsys.readouterr()
    world.track()
    told = metrics(capsys.readouterr().out)
    assert (told["OldestWaitingHours"], told["OldestPendingHours"], told["OldestUnacknowledgedHours"]) == (0, 7, 7)
    assert (told["RecordsWaiting hpv"], told["RecordsWaiting menacwy"]) == (2, 0)


def test_how_long_things_wait_is_told_even_while_mesh_lets_nobody_in(
    world: World, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(world)
    world.clock.forward(hours=80)
    names = ("certificate", "private_key", "passphrase", "ca_bundle")
    keys = {name: getattr(sandbox.certificates, name) for name in names}
    stranger = MeshClient(sandbox.base_url, Credentials("X26ABC1", "wrong", sandbox.shared_key), **keys)
    with stranger:
        capsys.readouterr()
        with pytest.raises(Unauthorised):
            Track(world.ledger, stranger, clock=world.clock).run()
    assert metrics(capsys.readouterr().out)["OldestUnacknowledgedHours"] == 80
