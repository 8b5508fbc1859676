"""Promises of sending over a MESH that fails and loses answers: each file is delivered once, whatever happens."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from nhs_mesh import (
    CertificateExpired,
    ConfigurationError,
    Corrupted,
    NotFound,
    Refused,
    SendOutcomeUnknown,
    TlsError,
    TrackingStatus,
    Unauthorised,
    Unavailable,
)
from tests.usecases.rows import row, upload_of, uuid_of
from vaccinations.formats.dps_columns import ROWS_VERSION
from vaccinations.formats.dps_parts import write_part
from vaccinations.jobs.export import ExportRequest
from vaccinations.model.export import Attempt, Failure, Lease, Phase, Status
from vaccinations.ports import LedgerConflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from nhs_mesh import MeshError
    from tests.usecases.memory import MemoryMesh
    from tests.usecases.world import World
    from vaccinations.model.export import DPSExport
    from vaccinations.results import ExportOutcome

pytestmark = [
    pytest.mark.parametrize("world", ["memory"], indirect=True),
    pytest.mark.parametrize("clock", ["noon"], indirect=True),
]
ROWS = 120


@pytest.fixture
def mesh(world: World) -> MemoryMesh:
    mesh: MemoryMesh = world.client._mesh
    return mesh


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a part have two rows."""
    monkeypatch.setattr("vaccinations.jobs.render.write_part", partial(write_part, part_bytes=1_000))
    monkeypatch.setattr("vaccinations.formats.dps_parts.MEMBER_CHARACTERS", 1_000)


@pytest.fixture
def in_parts(world: World, small_parts: None) -> int:
    """Upload what makes a file of many parts; return how many rows it has."""
    world.upload(upload_of(*map(row, range(ROWS))))
    return ROWS


def export(world: World, **event: Any) -> ExportOutcome:
    [outcome] = world.export(**event).exports
    return outcome


def next_hour(world: World) -> ExportOutcome:
    world.clock.forward(hours=1)
    return export(world, resume_only=True)


def delivered(world: World) -> list[list[str]]:
    return [[r["UNIQUE_ID"] for r in rows] for _, rows in world.inbox()]


def every_row(rows: int = ROWS) -> list[list[str]]:
    """One file that has every row once, in order."""
    return [[uuid_of(n) for n in range(rows)]]


def now(world: World) -> DPSExport:
    return world.ledger.get("hpv", 1)


def watch(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many parts MESH has, as each change of an export from now on notes it."""
    noted: list[int] = []
    change = world.ledger.change

    def watched(export: DPSExport, how: Callable[[DPSExport], DPSExport]) -> DPSExport:
        changed = change(export, how)
        noted.append(changed.attempts[-1].parts_sent)
        return changed

    monkeypatch.setattr(world.ledger, "change", watched)
    return noted


def counted(written: str) -> dict[str, float]:
    """Return the metrics in what was written that are about one programme."""
    found = {}
    for line in written.splitlines():
        said = json.loads(line)
        for directive in said.get("_aws", {}).get("CloudWatchMetrics", []):
            for metric in directive["Metrics"]:
                if said.get("programme") == "hpv":
                    [found[metric["Name"]]] = said[metric["Name"]]
    return found


# --- the first part


def test_a_message_that_mesh_has_whole_although_its_answer_was_lost_is_accepted_unsent(
    world: World, mesh: MemoryMesh
) -> None:
    world.upload(upload_of(row(0), row(1)))
    mesh.lose_answer("send")
    outcome = export(world)
    assert (outcome.status, outcome.error_code) == ("pending", "outcome-unknown")
    assert outcome.error_description == "the answer was lost"
    outcome = next_hour(world)
    assert (outcome.status, outcome.error_code, outcome.error_description) == ("accepted", "", "")
    [message_id] = mesh.messages
    assert outcome.message_id == message_id
    assert now(world).attempts[-1].parts_sent == now(world).parts == 1
    assert mesh.calls.count("send") == 1
    assert delivered(world) == every_row(2)


def test_while_the_answer_may_still_come_no_other_run_asks_or_sends(world: World, mesh: MemoryMesh) -> None:
    world.upload(upload_of(row(0)))
    mesh.lose_answer("send")
    export(world)
    lease = now(world).lease
    assert lease
    before = list(mesh.calls)
    assert export(world, resume_only=True).status == "pending"
    assert mesh.calls == before
    assert now(world).lease == lease
    # It lasts as long as the function may run, and a minute.
    assert (lease.until - world.clock()).total_seconds() == 900 + 60


def test_a_first_part_that_never_arrived_is_sent_once_more_under_the_same_local_id(
    world: World, mesh: MemoryMesh
) -> None:
    world.upload(upload_of(row(0)))
    mesh.fail("send", SendOutcomeUnknown("no answer", local_id="hpv-1-1"))
    assert export(world).status == "pending"
    outcome = next_hour(world)
    assert (outcome.status, outcome.error_code) == ("accepted", "")
    assert mesh.calls == ["send", "track_by_local_id", "send"]
    assert [message.local_id for message in mesh.messages.values()] == ["hpv-1-1"]
    assert delivered(world) == every_row(1)


def test_a_run_that_died_while_it_was_sending_leaves_mesh_its_time_and_the_next_one_to_ask(
    world: World, mesh: MemoryMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload(upload_of(row(0)))
    send = world.client.send

    def dying(*args: Any, **options: Any) -> str:
        send(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.client, "send", dying)
        with pytest.raises(KeyboardInterrupt):
            world.export()
    assert now(world).state is Phase.SENDING
    assert now(world).attempts[-1].sending_at == now(world).updated_at == world.clock()
    # The message may still be on its way: nobody asks before the lease has ended.
    assert export(world, resume_only=True).status == "pending"
    assert mesh.calls == ["send"]
    assert next_hour(world).status == "accepted"
    assert mesh.calls == ["send", "track_by_local_id"]
    assert delivered(world) == every_row(1)


def die_after_the_last_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run die once MESH has the last part, which the ledger does not know."""
    send_chunk = world.client.send_chunk

    def dying(message_id: str, number: int, parts: int, part: Any) -> None:
        send_chunk(message_id, number, parts, part)
        if number == parts:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.client, "send_chunk", dying)
        with pytest.raises(KeyboardInterrupt):
            world.export()
    assert now(world).attempts[-1].parts_sent < now(world).parts - 1


def test_a_question_that_mesh_refuses_says_nothing_of_a_message_that_is_complete(
    world: World, mesh: MemoryMesh, in_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_after_the_last_part(world, monkeypatch)
    refused = Refused(400)
    mesh.fail("track", refused)
    outcome = export(world, resume_only=True)
    assert outcome.status == "pending"
    [message_id] = mesh.messages
    assert outcome.error_description == f"MESH would not say whether it has {message_id}: {refused}"
    assert export(world, resume_only=True).status == "accepted"
    assert delivered(world) == every_row(in_parts)


def test_an_unfinished_upload_at_mesh_is_not_taken_for_complete(world: World, mesh: MemoryMesh, in_parts: int) -> None:
    mesh.lose_answer("send")
    assert export(world).status == "pending"
    [posted] = mesh.messages.values()
    assert posted.status is TrackingStatus.UPLOADING
    assert next_hour(world).status == "accepted"
    parts = now(world).parts
    assert parts > 4
    # It goes on with the second part, and sends nothing twice.
    assert (mesh.calls.count("send"), mesh.calls.count("send_chunk")) == (1, parts - 1)
    assert delivered(world) == every_row(in_parts)


def test_a_message_that_mesh_has_whole_is_accepted_without_another_part(
    world: World, mesh: MemoryMesh, in_parts: int
) -> None:
    mesh.lose_answer("send")
    export(world)
    [posted] = mesh.messages.values()
    # A run that was thought dead has sent the rest.
    posted.status = TrackingStatus.ACCEPTED
    assert next_hour(world).status == "accepted"
    assert "send_chunk" not in mesh.calls
    assert now(world).attempts[-1].parts_sent == now(world).parts > 1


def test_a_question_that_mesh_refuses_says_nothing_about_the_export(world: World, mesh: MemoryMesh) -> None:
    world.upload(upload_of(row(0)))
    mesh.lose_answer("send")
    export(world)
    refused = Refused(400, code="20", description="Invalid recipient")
    mesh.fail("track_by_local_id", refused)
    outcome = next_hour(world)
    assert (outcome.status, outcome.error_code) == ("pending", "unavailable")
    assert outcome.error_description == f"MESH would not say whether it has hpv-1-1: {refused}"
    assert now(world).lease is None
    assert export(world, resume_only=True).status == "accepted"
    assert delivered(world) == every_row(1)


def test_an_attempt_that_mesh_knows_several_times_waits_for_a_person(
    world: World, mesh: MemoryMesh, logged: Callable[[], str]
) -> None:
    world.upload(upload_of(row(0)))
    mesh.lose_answer("send")
    export(world)
    mesh.post("X26ABC1", "X26ABC2", "hpv-1-1", 1, {})
    logged()
    outcome = next_hour(world)
    assert (outcome.status, outcome.error_code) == ("unclear", "not-unique")
    assert outcome.error_description == "MESH knows several messages by the local id hpv-1-1"
    assert counted(logged()) == {"ExportsUnclear": 1}
    assert now(world).lease is None
    # No run touches it, and later exports wait.
    world.upload(upload_of(row(1)), name="later.csv")
    answer = world.next_night()
    assert (answer.status, [(e.export_id, e.status) for e in answer.exports]) == (
        "incomplete",
        [("hpv-1", "unclear")],
    )
    assert world.resend("hpv-1").local_id == "hpv-1-2"
    assert [e.status for e in world.next_night().exports] == ["accepted", "accepted"]


# --- further parts


def test_a_message_goes_on_at_the_part_where_mesh_stopped_answering(
    world: World, mesh: MemoryMesh, in_parts: int, logged: Callable[[], str]
) -> None:
    chunk = world.client.send_chunk
    numbers: list[int] = []

    def watched(message_id: str, number: int, parts: int, part: Any) -> None:
        numbers.append(number)
        if numbers == [2, 3, 4]:
            raise Unavailable("no answer")
        chunk(message_id, number, parts, part)

    world.client.send_chunk = watched
    outcome = export(world)
    assert (outcome.status, outcome.error_code, outcome.error_description) == ("pending", "unavailable", "no answer")
    assert (now(world).state, now(world).attempts[-1].parts_sent, now(world).lease) == (Phase.UPLOADING, 3, None)
    assert counted(logged()) == {"ExportsDelayed": 1}
    outcome = export(world, resume_only=True)
    assert (outcome.status, outcome.error_code, outcome.error_description) == ("accepted", "", "")
    assert [outcome.message_id] == list(mesh.messages)
    parts = now(world).parts
    assert numbers == [2, 3, 4, *range(4, parts + 1)]
    assert now(world).attempts[-1].error is None
    assert counted(logged()) == {"ExportsAccepted": 1, "RecordsExported": in_parts}
    assert delivered(world) == every_row(in_parts)


def test_an_export_that_stops_says_since_when_it_waits(world: World, mesh: MemoryMesh, in_parts: int) -> None:
    def slow(*_: Any) -> None:
        world.clock.forward(minutes=1)
        raise Unavailable("no answer")

    world.client.send_chunk = slow
    began = world.clock()
    assert export(world).status == "pending"
    assert now(world).updated_at == world.clock() > began


def test_how_far_a_message_got_is_noted_after_the_first_part_and_at_each_quarter(
    world: World, in_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = watch(world, monkeypatch)
    assert export(world).status == "accepted"
    parts = now(world).parts
    assert parts > 8
    quarters = [-(-parts * quarter // 4) for quarter in (1, 2, 3)]
    assert list(dict.fromkeys(noted)) == [0, 1, *quarters, parts]
    # It takes the lease, is about to send, notes the first part, three quarters, and the end.
    assert len(noted) == 2 + 1 + 3 + 1


def test_a_message_of_one_part_is_noted_once_it_is_accepted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.upload(upload_of(row(0)))
    noted = watch(world, monkeypatch)
    assert export(world).status == "accepted"
    assert noted == [0, 0, 1]


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(("failing", "further"), [(2, 0), (3, 1), (4, 1)])
def test_where_mesh_stops_answering_is_noted_unless_it_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch, failing: int, further: int
) -> None:
    chunk = world.client.send_chunk

    def watched(message_id: str, number: int, parts: int, part: Any) -> None:
        if number == failing:
            raise Unavailable("no answer")
        chunk(message_id, number, parts, part)

    monkeypatch.setattr(world.client, "send_chunk", watched)
    noted = watch(world, monkeypatch)
    assert export(world).status == "pending"
    # It takes the lease, is about to send, notes the first part, perhaps where it stopped, and gives the lease back.
    assert noted == [0, 0, 1, *[failing - 1] * further, failing - 1]


@pytest.mark.usefixtures("small_parts")
def test_a_message_of_two_parts_arrives(world: World, mesh: MemoryMesh) -> None:
    world.upload(upload_of(*map(row, range(4))))
    assert export(world).status == "accepted"
    assert now(world).parts == 2
    assert now(world).message_id in mesh.messages
    assert delivered(world) == every_row(4)


def test_a_last_part_whose_answer_is_lost_is_not_delivered_twice(
    world: World, mesh: MemoryMesh, in_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = world.client.send_chunk

    def losing(message_id: str, number: int, parts: int, part: Any) -> None:
        if number == parts:
            mesh.lose_answer("send_chunk")
        chunk(message_id, number, parts, part)

    with monkeypatch.context() as patch:
        patch.setattr(world.client, "send_chunk", losing)
        assert export(world).status == "pending"
    assert now(world).attempts[-1].parts_sent == now(world).parts - 1
    # MESH says that the message is complete already.
    assert export(world, resume_only=True).status == "accepted"
    assert now(world).attempts[-1].parts_sent == now(world).parts
    assert "track" not in mesh.calls
    assert delivered(world) == every_row(in_parts)


def test_a_message_that_a_dead_run_had_completed_is_accepted_where_mesh_says_so(
    world: World, mesh: MemoryMesh, in_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_after_the_last_part(world, monkeypatch)
    before = mesh.calls.count("send_chunk")
    assert export(world, resume_only=True).status == "accepted"
    assert (mesh.calls.count("send_chunk") - before, mesh.calls.count("track")) == (1, 1)
    assert now(world).attempts[-1].parts_sent == now(world).parts
    assert delivered(world) == every_row(in_parts)


def test_a_message_that_mesh_calls_complete_and_still_uploads_is_not_taken_for_accepted(
    world: World, mesh: MemoryMesh, in_parts: int
) -> None:
    mesh.fail("send_chunk", Refused(423, code="23", description="Locked"))
    outcome = export(world)
    assert (outcome.status, outcome.error_code, outcome.error_description) == ("failed", "23", "Locked")
    assert delivered(world) == []
    assert world.next_night().exports[0].status == "accepted"
    assert delivered(world) == every_row(in_parts)


@pytest.mark.parametrize(
    ("error", "code", "description"),
    [
        (Refused(417, code="06", description="Not allowed"), "06", "Not allowed"),
        (Refused(413), "413", ""),
        (NotFound("there is no such message"), "404", "MESH no longer knows the message"),
    ],
    ids=["with a code", "without a code", "the message is gone"],
)
def test_a_further_part_that_mesh_refuses_fails_the_export_with_the_reason(
    world: World,
    mesh: MemoryMesh,
    in_parts: int,
    logged: Callable[[], str],
    error: Exception,
    code: str,
    description: str,
) -> None:
    mesh.fail("send_chunk", error)
    outcome = export(world)
    assert (outcome.status, outcome.error_code, outcome.error_description) == ("failed", code, description)
    written = logged()
    assert counted(written) == {"ExportsFailed": 1}
    [said] = [line for line in map(json.loads, written.splitlines()) if "MESH refused" in line.get("message", "")]
    assert (said["code"], said["description"]) == (code, description)
    assert "track" not in mesh.calls
    assert world.next_night().exports[0].status == "accepted"
    assert delivered(world) == every_row(in_parts)


# --- what is noted, and what is not kept


def test_a_failed_export_keeps_no_lease_so_that_the_next_attempt_may_begin_at_once(
    world: World, mesh: MemoryMesh
) -> None:
    world.upload(upload_of(row(0)))
    mesh.fail("send", Refused(417, code="12", description="Unregistered to address"))
    assert export(world).status == "failed"
    assert now(world).lease is None
    assert export(world).status == "accepted"
    assert now(world).lease is None


def test_another_attempt_begins_with_nothing_of_the_one_before_but_its_parts(
    world: World, mesh: MemoryMesh, in_parts: int
) -> None:
    mesh.fail("send_chunk", Refused(417, code="06", description="Not allowed"))
    export(world)
    [failed] = now(world).attempts
    assert (failed.error, failed.parts_sent, bool(failed.message_id)) == (Failure("06", "Not allowed"), 1, True)
    world.clock.forward(minutes=5)
    again = world.resend("hpv-1")
    names = (again.attempts[1].filename, again.attempts[1].mesh_filename)
    assert again.attempts == (
        failed,
        Attempt(number=2, filename=names[0], mesh_filename=names[1], begun_at=world.clock(), phase=Phase.RENDERED),
    )
    assert set(names).isdisjoint({failed.filename, failed.mesh_filename})
    assert (again.message_id, again.status, again.parts) == ("", Status.PENDING, now(world).parts)
    assert export(world, resume_only=True).status == "accepted"
    assert now(world).attempts[0] == failed
    assert delivered(world) == every_row(in_parts)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CertificateExpired("the client certificate expired on 2026-12-01"), "certificate-expired"),
        (TlsError("the private key does not belong to the client certificate"), "configuration"),
        (ConfigurationError("no such proxy"), "configuration"),
        (Corrupted("the answer is not whole"), "unavailable"),
    ],
)
def test_what_keeps_us_out_of_mesh_is_said_as_such_and_uses_up_no_attempt(
    world: World, error: MeshError, code: str
) -> None:
    world.upload(upload_of(row(0)))
    run = world.export_use_case(connect=Mock(side_effect=error)).run(ExportRequest.from_event({"programme": "hpv"}))
    [outcome] = run.exports
    assert (outcome.status, outcome.error_code, outcome.error_description) == ("pending", code, str(error))
    assert now(world).attempts[-1].error == Failure(code, str(error))
    assert export(world, resume_only=True).status == "accepted"
    assert len(now(world).attempts) == 1


def test_what_was_wrong_before_is_not_said_of_an_accepted_export(world: World, mesh: MemoryMesh) -> None:
    world.upload(upload_of(row(0)))
    mesh.fail("send", Unauthorised("MESH does not know this password"))
    outcome = export(world)
    assert (outcome.error_code, outcome.error_description) == ("unauthorised", "MESH does not know this password")
    # Nobody can tell whether it arrived: the next run asks.
    outcome = export(world, resume_only=True)
    assert (outcome.status, outcome.error_code, outcome.error_description) == ("accepted", "", "")
    assert now(world).attempts[-1].error is None
    assert mesh.calls == ["send", "track_by_local_id", "send"]


def test_an_error_of_our_own_gives_the_lease_back_and_is_not_said_to_be_meshs(
    world: World, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    world.upload(upload_of(row(0)))

    def broken(*_: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.bucket, "put_part", broken)
        outcome = export(world)
    assert (outcome.status, outcome.error_code, outcome.export_id) == ("error", "OSError", None)
    assert counted(logged()) == {"ExportErrors": 1}
    assert (now(world).state, now(world).lease, now(world).attempts[-1].error) == (Phase.TO_RENDER, None, None)
    assert export(world, resume_only=True).status == "accepted"


def test_an_error_of_our_own_is_told_even_where_the_lease_was_lost_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload(upload_of(row(0)))

    def broken(*_: Any) -> None:
        world.clock.forward(hours=1)
        patch.undo()
        assert export(world, resume_only=True).status == "accepted"
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.bucket, "put_part", broken)
        [outcome] = world.export().exports
    assert (outcome.status, outcome.error_code) == ("error", "OSError")
    assert now(world).status is Status.ACCEPTED
    assert delivered(world) == every_row(1)


def test_an_error_of_our_own_is_told_even_where_the_lease_cannot_be_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload(upload_of(row(0)))

    def outrun(*_: Any) -> None:
        raise LedgerConflict("hpv-1")

    def broken(*_: Any) -> None:
        patch.setattr(world.ledger, "change", outrun)
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(world.bucket, "put_part", broken)
        assert export(world).error_code == "OSError"
    # Once the lease has run out, another run goes on.
    assert next_hour(world).status == "accepted"


def test_an_export_says_when_it_was_sealed_and_when_each_attempt_began(world: World, mesh: MemoryMesh) -> None:
    world.upload(upload_of(row(0)))
    world.clock.forward(hours=1)
    sealed_at = world.clock()
    mesh.fail("send", Refused(417, code="12", description="Unregistered to address"))
    export(world)
    world.next_night()
    assert now(world).sealed_at == sealed_at
    assert [attempt.begun_at for attempt in now(world).attempts] == [sealed_at, world.clock()]


def test_a_lease_ends_at_its_last_moment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.upload(upload_of(row(0)))
    put_manifest = world.bucket.put_manifest

    def slow(*given: Any) -> None:
        put_manifest(*given)
        lease = now(world).lease
        assert isinstance(lease, Lease)
        world.clock.forward(seconds=(lease.until - world.clock()).total_seconds())

    with monkeypatch.context() as patch:
        patch.setattr(world.bucket, "put_manifest", slow)
        assert export(world).status == "pending"
    assert delivered(world) == []
    assert next_hour(world).status == "accepted"


def test_a_run_out_of_time_says_how_many_parts_mesh_has(world: World, in_parts: int, logged: Callable[[], str]) -> None:
    seconds = itertools.chain([900.0] * 4, itertools.repeat(1.0))
    # Time enough for the first parts to be made; then for nothing more.
    for _ in range(100):
        world.export_use_case(seconds_left=lambda: next(seconds)).run(ExportRequest())
        if now(world).attempts[-1].parts_sent:
            break
    told = [json.loads(line) for line in logged().splitlines()]
    stops = [(said["parts_sent"], said["parts"]) for said in told if said.get("message", "").startswith("out of time")]
    assert stops[0] == (0, 0)
    assert stops[-1] == (1, now(world).parts)
    assert now(world).lease is None
    assert export(world, resume_only=True).status == "accepted"
    assert delivered(world) == every_row(in_parts)


def test_a_run_that_has_a_minute_left_goes_on(world: World, in_parts: int) -> None:
    world.seconds_left = 60.0
    assert export(world).status == "accepted"
    assert delivered(world) == every_row(in_parts)


def test_a_run_out_of_time_leaves_the_export_waiting_since_it_stopped(world: World, in_parts: int) -> None:
    def ticking() -> float:
        world.clock.forward(seconds=1)
        return 1.0

    # Some of these runs stop while parts are made, one before the first is sent, one after it.
    for _ in range(100):
        world.export_use_case(seconds_left=ticking).run(ExportRequest(programme="hpv"))
        assert now(world).updated_at == world.clock()
        if now(world).attempts[-1].parts_sent:
            break
    assert now(world).attempts[-1].parts_sent == 1


def test_a_run_that_has_made_the_parts_sends_the_first_ten_from_its_own_disk(
    world: World, in_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    open_part = world.bucket.open_part

    def watched(programme: str, number: int, part: int) -> Any:
        fetched.append(part)
        return open_part(programme, number, part)

    monkeypatch.setattr(world.bucket, "open_part", watched)
    export(world)
    assert now(world).parts > 11
    assert fetched == list(range(11, now(world).parts + 1))
    assert delivered(world) == every_row(in_parts)


def test_a_file_is_sent_to_dps_as_csv_under_our_workflow_and_its_own_name(world: World, mesh: MemoryMesh) -> None:
    world.upload(upload_of(row(0)))
    export(world)
    [posted] = mesh.messages.values()
    assert (posted.to, posted.sender, posted.local_id) == ("X26ABC3", "X26ABC1", "hpv-1-1")
    assert (posted.headers["Mex-WorkflowID"], posted.headers["Content-Type"]) == ("dps export", "text/csv")
    assert posted.headers["Mex-FileName"] == now(world).attempts[-1].mesh_filename
    [(_, encoding)] = posted.chunks.values()
    assert encoding == "gzip"


def told(written: str) -> str:
    """Return what the log says of the exception that ended an export."""
    [told] = [line["exception"] for line in map(json.loads, written.splitlines()) if "exception" in line]
    return str(told)


def test_parts_that_do_not_hold_the_exports_records_are_not_sent(
    world: World, mesh: MemoryMesh, logged: Callable[[], str]
) -> None:
    world.upload(upload_of(row(0), row(1)))
    ledger: Any = world.ledger
    ledger._store(replace(now(world), records=3))
    outcome = export(world)
    assert (outcome.status, outcome.error_code) == ("error", "RenderMismatch")
    assert told(logged()).endswith("RenderMismatch: hpv-1: 3 records in the ledger, 2 in its parts")
    assert mesh.messages == {}


def test_parts_that_are_not_those_that_mesh_was_told_of_are_not_sent(
    world: World, mesh: MemoryMesh, in_parts: int, logged: Callable[[], str]
) -> None:
    mesh.fail("send_chunk", Unavailable("no answer"))
    assert export(world).status == "pending"
    assert in_parts
    parts = now(world).parts
    ledger: Any = world.ledger
    ledger._store(replace(now(world), parts=parts + 1))
    logged()
    outcome = export(world, resume_only=True)
    assert (outcome.status, outcome.error_code) == ("error", "RenderMismatch")
    assert told(logged()).endswith(f"RenderMismatch: hpv-1: begun in {parts + 1} parts, now {parts}")
    assert delivered(world) == []


def test_what_was_sent_stays_on_file_with_its_export_and_the_version_of_its_rows(world: World) -> None:
    world.upload(upload_of(row(0)))
    export(world)
    manifest = world.bucket.manifest("hpv", 1)
    assert manifest
    assert (manifest.export_id, manifest.rows_version, manifest.records) == ("hpv-1", ROWS_VERSION, 1)
