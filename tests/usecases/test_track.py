"""Promises of tracking, in memory, and on moto's server and NHS England's sandbox."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from nhs_mesh import Credentials, Expired, MeshClient, NotFound, TrackingStatus, Unauthorised, Unavailable
from tests.usecases.rows import row, upload_of
from tests.usecases.stores import on_sandbox
from vaccinations.jobs.ingest import MOST_TRIES
from vaccinations.jobs.track import Track
from vaccinations.model import lifecycle
from vaccinations.model.export import Failure, Phase, Status
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.sandbox import Sandbox
    from nhs_mesh import Tracking
    from tests.usecases.memory import MemoryMesh
    from tests.usecases.world import World
    from vaccinations.results import TrackRun

in_memory = pytest.mark.parametrize("world", ["memory"], indirect=True)


class Broken(Exception):
    """Stands for whatever makes it impossible to complete a request."""


def sent(world: World) -> None:
    world.upload(upload_of(row(1), row(2, "MenACWY")))
    world.export()


def test_a_file_that_nobody_has_picked_up_stays_accepted(world: World) -> None:
    sent(world)
    answer = world.track()
    assert answer.status == "ok"
    assert {(e.export_id, e.status) for e in answer.exports} == {
        ("hpv-1", "accepted"),
        ("menacwy-1", "accepted"),
    }


def test_a_file_that_dps_has_picked_up_is_acknowledged(world: World) -> None:
    sent(world)
    world.acknowledge()
    answer = world.track()
    assert {(e.export_id, e.status) for e in answer.exports} == {
        ("hpv-1", "acknowledged"),
        ("menacwy-1", "acknowledged"),
    }
    assert world.attempt().acknowledged_at == world.clock()
    assert world.track().exports == ()


def test_a_report_marks_the_export_it_is_about_and_is_acknowledged(world: World) -> None:
    sent(world)
    world.report(world.ledger.get("hpv", 1).message_id)
    answer = world.track()
    assert answer.reports == 1
    assert world.ledger.get("hpv", 1).status is Status.UNDELIVERED
    assert world.attempt().error == Failure("14", "Message not collected by recipient after 5 days")
    assert world.ledger.get("menacwy", 1).status is Status.ACCEPTED
    assert list(world.client.inbox()) == []


def requests(world: World) -> list[tuple[str, str]]:
    """List every version of every request."""
    return [(each.key, each.version) for each in world.bucket.uploads() if each.key.startswith("requests/")]


def request_of_an_undelivered_export(world: World) -> tuple[str, str]:
    """Let MESH give hpv's file up, and Track ask for its export to be requeued; return the request."""
    sent(world)
    world.report(world.ledger.get("hpv", 1).message_id)
    world.track()
    [request] = requests(world)
    return request


def park(world: World, complete: Callable[[], object]) -> str:
    """Try in vain to complete a request, until it is parked; return its batch id."""
    with patch.object(world.ledger, "attach", side_effect=Broken):
        for _ in range(MOST_TRIES):
            with suppress(Broken):
                complete()
    [batch_id] = world.register.parked()
    return batch_id


def test_an_undelivered_export_is_requeued_by_itself_and_never_goes_out_again_as_it_was(world: World) -> None:
    sent(world)
    first = world.ledger.get("hpv", 1)
    world.report(first.message_id)
    world.track()
    world.track()
    assert [key for key, _ in requests(world)] == ["requests/hpv-1.requeue"]
    world.do_requests()
    found = world.ledger.get("hpv", 1)
    assert (found.status, found.request, len(found.attempts)) == (Status.REQUEUED, "requests/hpv-1.requeue", 1)
    assert world.ledger.get("hpv", 2).records == first.records
    [outcome] = world.next_night().exports
    assert (outcome.export_id, outcome.status) == ("hpv-2", "accepted")
    world.track()
    assert [key for key, _ in requests(world)] == ["requests/hpv-1.requeue"]


def test_a_request_that_is_parked_is_not_made_again_before_a_person_has_decided(world: World) -> None:
    def track_later() -> list[tuple[str, str]]:
        world.clock.forward(hours=1)
        world.track()
        return requests(world)

    request = request_of_an_undelivered_export(world)
    parked = park(world, lambda: world.stores.handle(request))
    assert track_later() == [request]
    parked_again = park(world, lambda: world.stores.ingesting.retry(parked, "it may be well again"))
    assert track_later() == [request]
    assert world.stores.ingesting.retry(parked_again, "it is well again").status == "ingested"
    assert world.ledger.get("hpv", 1).status is Status.REQUEUED
    assert track_later() == [request]


def test_a_request_that_was_parked_and_abandoned_is_made_again(world: World) -> None:
    """Nobody has told DPS of these records."""
    request = request_of_an_undelivered_export(world)
    parked = park(world, lambda: world.stores.handle(request))
    world.stores.ingesting.abandon(parked, "a mistake")
    world.clock.forward(hours=1)
    world.track()
    assert len(requests(world)) == 2
    world.do_requests()
    assert world.ledger.get("hpv", 1).status is Status.REQUEUED
    assert world.ledger.get("hpv", 2).records == 1


@in_memory
@pytest.mark.parametrize("phase", [Phase.SENDING, Phase.OUTCOME_UNKNOWN, Phase.UPLOADING])
def test_a_report_about_an_export_that_is_still_being_sent_waits_until_that_is_known(
    world: World, phase: Phase
) -> None:
    """A run has died between MESH's answer and the ledger, say."""
    sent(world)
    accepted = world.ledger.get("hpv", 1)
    message_id = accepted.message_id if phase is Phase.UPLOADING else ""
    attempt = replace(accepted.attempts[-1], phase=phase, message_id=message_id)
    world.ledger.change(accepted, lambda e: replace(e, status=Status.PENDING, attempts=(attempt,)))
    world.report(accepted.message_id)
    assert world.track().reports == 0
    assert len(list(world.client.inbox())) == 1
    world.ledger.change(accepted, lambda e: replace(accepted, batches=e.batches))
    assert world.track().reports == 1
    assert world.ledger.get("hpv", 1).status is Status.UNDELIVERED
    assert list(world.client.inbox()) == []


@in_memory
def test_a_report_about_another_message_does_not_wait_for_an_export_that_is_being_sent(world: World) -> None:
    sent(world)
    for name, phase in (("hpv", Phase.UPLOADING), ("menacwy", Phase.RENDERED)):
        export = world.ledger.get(name, 1)
        attempt = replace(export.attempts[-1], phase=phase, message_id="M" if phase is Phase.UPLOADING else "")
        world.ledger.change(export, partial(replace, status=Status.PENDING, attempts=(attempt,)))
    world.report("0123456789ABCDEF0123456789ABCDEF")
    assert world.track().reports == 1
    assert list(world.client.inbox()) == []


def test_a_report_about_somebody_elses_message_marks_nothing(world: World) -> None:
    sent(world)
    world.report("0123456789ABCDEF0123456789ABCDEF")
    assert world.track().reports == 1
    assert world.ledger.get("hpv", 1).status is Status.ACCEPTED


def test_messages_that_are_no_reports_are_left_in_the_inbox(world: World) -> None:
    import io

    from nhs_mesh import Part

    part = Part(open=lambda: io.BytesIO(b"hello"), size=5, content_encoding=None)
    message_id = world.receiver.send("X26ABC1", "letters", part, filename="hello.txt").message_id
    assert world.track().reports == 0
    assert list(world.client.inbox()) == [message_id]
    world.client.acknowledge(message_id)


def seal(world: World) -> None:
    begin = partial(lifecycle.seal, now=world.clock())
    world.ledger.begin_attempt(world.ledger.get("hpv", 1), begin, world.names(PROGRAMMES["hpv"]))


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
    world.upload(upload_of(row(1), row(2), row(3, "MenACWY")))
    world.clock.forward(hours=3)
    capsys.readouterr()
    world.track()
    told = metrics(capsys.readouterr().out)
    assert (told["OldestWaitingHours"], told["OldestPendingHours"], told["OldestUnacknowledgedHours"]) == (3, 0, 0)
    assert (told["RecordsWaiting hpv"], told["RecordsWaiting menacwy"], told["RecordsWaiting flu"]) == (2, 1, 0)
    world.export(programme="menacwy")
    seal(world)
    world.clock.forward(hours=7)
    capsys.readouterr()
    world.track()
    told = metrics(capsys.readouterr().out)
    assert (told["OldestWaitingHours"], told["OldestPendingHours"], told["OldestUnacknowledgedHours"]) == (0, 7, 7)
    assert (told["RecordsWaiting hpv"], told["RecordsWaiting menacwy"]) == (2, 0)


@on_sandbox
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
            Track(world.ledger, world.bucket, stranger, clock=world.clock).run()
    assert metrics(capsys.readouterr().out)["OldestUnacknowledgedHours"] == 80


# --- where MESH fails


@pytest.fixture
def mesh(world: World) -> MemoryMesh:
    mesh: MemoryMesh = world.client._mesh
    return mesh


def statuses(world: World) -> list[Status]:
    return [world.ledger.get(name, 1).status for name in ("hpv", "menacwy")]


@in_memory
def test_an_export_that_cannot_be_tracked_now_does_not_hinder_another(
    world: World, mesh: MemoryMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(world)
    world.acknowledge()
    mesh.fail("track", Unavailable("no answer"))
    capsys.readouterr()
    answer = world.track()
    assert answer.status == "incomplete"
    assert sorted(e.status for e in answer.exports) == [Status.ACCEPTED, Status.ACKNOWLEDGED]
    assert metrics(capsys.readouterr().out)["TrackErrors"] == 1
    answer = world.track()
    assert (answer.status, [e.status for e in answer.exports]) == ("ok", [Status.ACKNOWLEDGED])


@in_memory
def test_where_mesh_lets_nobody_in_the_run_fails_and_how_long_things_wait_is_told(
    world: World, mesh: MemoryMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(world)
    world.clock.forward(hours=80)
    for method in ("track", "inbox"):
        mesh.fail(method, Unauthorised("MESH does not know this password"))
        capsys.readouterr()
        with pytest.raises(Unauthorised):
            world.track()
        assert metrics(capsys.readouterr().out)["OldestUnacknowledgedHours"] == 80
    world.report(world.ledger.get("hpv", 1).message_id)
    mesh.fail("download", Unauthorised("MESH does not know this password"))
    with pytest.raises(Unauthorised):
        world.track()
    assert statuses(world) == [Status.ACCEPTED, Status.ACCEPTED]


@in_memory
@pytest.mark.parametrize("status", [TrackingStatus.UNDELIVERABLE, TrackingStatus.ERROR])
@pytest.mark.parametrize(
    ("code", "description", "failure"),
    [
        ("14", "Message not collected", Failure("14", "Message not collected")),
        (None, None, None),
    ],
    ids=["with a reason", "without a reason"],
)
def test_a_message_that_mesh_could_not_deliver_is_undelivered_with_what_mesh_says(
    world: World,
    mesh: MemoryMesh,
    capsys: pytest.CaptureFixture[str],
    status: TrackingStatus,
    code: str | None,
    description: str | None,
    failure: Failure | None,
) -> None:
    sent(world)
    posted = mesh.messages[world.ledger.get("hpv", 1).message_id]
    posted.status, posted.status_code, posted.status_description = status, code, description
    capsys.readouterr()
    answer = world.track()
    assert {e.export_id: e.status for e in answer.exports} == {
        "hpv-1": Status.UNDELIVERED,
        "menacwy-1": Status.ACCEPTED,
    }
    assert world.attempt().error == (failure or Failure("", str(status)))
    assert metrics(capsys.readouterr().out)["ExportsUndelivered hpv"] == 1


@in_memory
@pytest.mark.parametrize("status", [TrackingStatus.UPLOADING, TrackingStatus.ACCEPTED])
def test_a_message_on_its_way_changes_nothing(world: World, mesh: MemoryMesh, status: TrackingStatus) -> None:
    sent(world)
    before = world.ledger.get("hpv", 1)
    mesh.messages[before.message_id].status = status
    assert world.track().status == "ok"
    assert world.ledger.get("hpv", 1) == before


@in_memory
@pytest.mark.parametrize("error", [NotFound("it has gone"), Expired("it is no longer kept")], ids=["gone", "expired"])
def test_a_report_that_has_gone_meanwhile_is_not_waited_for(world: World, mesh: MemoryMesh, error: Exception) -> None:
    sent(world)
    world.report(world.ledger.get("hpv", 1).message_id)
    world.report(world.ledger.get("menacwy", 1).message_id)
    mesh.fail("download", error)
    answer = world.track()
    assert (answer.status, answer.reports) == ("ok", 1)
    assert statuses(world) == [Status.ACCEPTED, Status.UNDELIVERED]


@in_memory
def test_a_report_that_cannot_be_read_now_is_read_by_the_next_run(
    world: World, mesh: MemoryMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(world)
    world.report(world.ledger.get("hpv", 1).message_id)
    world.report(world.ledger.get("menacwy", 1).message_id)
    mesh.fail("download", Unavailable("no answer"))
    capsys.readouterr()
    answer = world.track()
    assert (answer.status, answer.reports) == ("incomplete", 1)
    assert metrics(capsys.readouterr().out)["TrackErrors"] == 1
    assert statuses(world) == [Status.ACCEPTED, Status.UNDELIVERED]
    answer = world.track()
    assert (answer.status, answer.reports) == ("ok", 1)
    assert statuses(world) == [Status.UNDELIVERED, Status.UNDELIVERED]
    assert list(world.client.inbox()) == []


@in_memory
def test_a_report_whose_acknowledgement_was_lost_is_applied_once(
    world: World, mesh: MemoryMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(world)
    world.report(world.ledger.get("hpv", 1).message_id)
    mesh.fail("acknowledge", Unavailable("no answer"))
    assert (world.track().status, statuses(world)[0]) == ("incomplete", Status.UNDELIVERED)
    world.do_requests()
    capsys.readouterr()
    answer = world.track()
    assert (answer.status, answer.reports) == ("ok", 1)
    assert statuses(world)[0] is Status.REQUEUED
    assert metrics(capsys.readouterr().out)["ReportsUnmatched"] == 1


@in_memory
def test_a_report_behind_a_message_that_is_none_is_read_too(world: World, mesh: MemoryMesh) -> None:
    sent(world)
    letter = world.receiver.send_file("X26ABC1", "letters", b"hello").message_id
    world.report(world.ledger.get("hpv", 1).message_id)
    assert world.track().reports == 1
    assert statuses(world)[0] is Status.UNDELIVERED
    assert list(world.client.inbox()) == [letter]


@in_memory
def test_a_report_that_names_no_message_marks_nothing_and_is_counted(
    world: World, mesh: MemoryMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    world.upload(upload_of(row(1)))
    world.export()
    export = world.ledger.get("hpv", 1)
    world.report(export.message_id)
    [report] = [posted for posted in mesh.messages.values() if posted.to == "X26ABC1"]
    del report.headers["Mex-LinkedMsgID"]
    capsys.readouterr()
    assert world.track().reports == 1
    assert world.ledger.get("hpv", 1) == export
    assert metrics(capsys.readouterr().out)["ReportsUnmatched"] == 1


@in_memory
def test_what_another_run_has_heard_before_is_not_news(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent(world)
    world.acknowledge()
    answers: list[TrackRun] = []
    track = world.client.track

    def meanwhile(message_id: str) -> Tracking:
        found: Tracking = track(message_id)
        if not answers:
            monkeypatch.undo()
            answers.append(world.track())
        return found

    monkeypatch.setattr(world.client, "track", meanwhile)
    capsys.readouterr()
    answer = world.track()
    assert [e.status for e in answer.exports] == [Status.ACKNOWLEDGED] * 2 == [e.status for e in answers[0].exports]
    assert answer.status == "ok"
    written = capsys.readouterr().out
    assert sum('"ExportsAcknowledged"' in line for line in written.splitlines()) == 2
    assert metrics(written)["ExportsAcknowledged hpv"] == 1


@in_memory
def test_an_answer_names_the_message_that_was_asked_about(world: World) -> None:
    sent(world)
    assert {(e.export_id, e.programme, e.message_id) for e in world.track().exports} == {
        (f"{name}-1", name, world.ledger.get(name, 1).message_id) for name in ("hpv", "menacwy")
    }


def test_an_undelivered_export_is_requeued_though_it_was_asked_for_too_early(world: World) -> None:
    """As after a restore: the request is in the bucket, and the ledger does not know yet that nobody had the file."""
    sent(world)
    world.stores.handle(world.bucket.put_request("hpv-1.requeue"))
    world.report(world.ledger.get("hpv", 1).message_id)
    world.track()
    world.do_requests()
    assert world.ledger.get("hpv", 1).status is Status.REQUEUED
