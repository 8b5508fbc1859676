"""Promises of the nightly export, in memory, and on moto's server and NHS England's sandbox."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from nhs_mesh import MeshClient, SendOutcomeUnknown
from tests.usecases.rows import row, upload_of, uuid_of
from tests.usecases.stores import on_sandbox
from tests.usecases.world import DPS, World
from vaccinations.formats.dps_columns import COLUMNS
from vaccinations.formats.dps_parts import write_part
from vaccinations.jobs.export import ExportRequest
from vaccinations.model.export import Status
from vaccinations.model.lifecycle import ImpossibleMove
from vaccinations.model.problems import InvalidEvent
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vaccinations.results import ExportRun

#: A mailbox that MESH does not know.
NOBODY = "NOSUCHBOX"


def some(programme: str = "HPV", numbers: range = range(3), **options: str) -> str:
    return upload_of(*(row(n, programme, **options) for n in numbers))


def test_each_programme_with_unsent_records_gets_one_file(world: World) -> None:
    world.upload(upload_of(row(1, "HPV"), row(2, "MenACWY"), row(3, "HPV")))
    answer = world.export()
    assert answer.status == "ok"
    assert [(e.export_id, e.programme, e.status, e.records) for e in answer.exports] == [
        ("hpv-1", "hpv", "accepted", 2),
        ("menacwy-1", "menacwy", "accepted", 1),
    ]
    assert answer.nothing_to_send == ("flu", "mmr", "mmrv", "td_ipv")
    assert [e.filename for e in answer.exports] == [
        f"Vaccinations-HPV-{world.clock.today}.csv",
        f"Vaccinations-MenACWY-{world.clock.today}.csv",
    ]
    files = dict(world.inbox())
    hpv, menacwy = (files[e.mesh_filename] for e in answer.exports)
    assert [r["UNIQUE_ID"] for r in hpv] == [uuid_of(1), uuid_of(3)]
    assert [r["UNIQUE_ID"] for r in menacwy] == [uuid_of(2)]


def test_a_file_has_the_34_columns_and_names_every_record_new(world: World) -> None:
    world.upload(some())
    world.export()
    [(_, rows)] = world.inbox()
    assert [tuple(r) for r in rows] == [COLUMNS] * 3
    assert {r["ACTION_FLAG"] for r in rows} == {"new"}


def test_what_was_sent_stays_on_file_byte_for_byte(world: World) -> None:
    world.upload(some())
    world.export()
    assert {"exports/hpv/1/manifest.json", "exports/hpv/1/part-0001.csv.gz"} <= set(world.objects())


def test_an_event_that_lambda_delivers_twice_at_once_sends_a_file_once(world: World) -> None:
    """Both invocations bear one request id; wiring tells their leases apart, and a lease is given once."""
    world.upload(some())
    answers: list[ExportRun] = []

    def meanwhile() -> object:
        if not answers:
            answers.append(world.export_use_case(holder="one-request").run(ExportRequest()))
        return world.client

    world.export_use_case(holder="one-request", connect=meanwhile).run(ExportRequest())
    assert len(world.inbox()) == 1


def test_a_second_run_sends_nothing(world: World) -> None:
    world.upload(some())
    world.export()
    answer = world.export()
    assert (answer.exports, len(answer.nothing_to_send)) == ((), len(PROGRAMMES))
    assert len(world.inbox()) == 1


def test_records_of_later_uploads_go_into_the_next_file_of_the_day(world: World) -> None:
    world.upload(some())
    world.export()
    world.upload(some(numbers=range(10, 12)), name="later.csv")
    world.export()
    day = f"{world.clock.today}"
    named = {names.mesh_filename: names.filename for e in world.ledger.exports("hpv") for names in e.names}
    assert [(named[name], len(rows)) for name, rows in world.inbox()] == [
        (f"Vaccinations-HPV-{day}.csv", 3),
        (f"Vaccinations-HPV-{day}-2.csv", 2),
    ]


def test_rows_keep_the_order_in_which_they_were_ingested(world: World) -> None:
    for start in (20, 10, 30):
        world.upload(some(numbers=range(start, start + 3)), name=f"{start}.csv")
    world.export()
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows] == [uuid_of(n) for start in (20, 10, 30) for n in range(start, start + 3)]


def test_the_log_says_what_was_sent_as_the_guide_shows_it(world: World, logged: Callable[[], str]) -> None:
    world.upload(some())
    message_id = world.export().exports[0].message_id
    messages = [json.loads(line).get("message") for line in logged().splitlines()]
    assert f'DPS export (hpv-1) for programme (hpv) sent: 202 - {{"message_id":"{message_id}"}}' in messages
    assert "No vaccination records to export for programme flu" in messages


def test_a_single_programme_can_be_exported(world: World) -> None:
    world.upload(upload_of(row(1, "HPV"), row(2, "MenACWY")))
    answer = world.export(programme="menacwy")
    assert [e.export_id for e in answer.exports] == ["menacwy-1"]
    assert answer.nothing_to_send == ()


def test_resume_only_seals_nothing(world: World) -> None:
    world.upload(some())
    assert world.export(resume_only=True).exports == ()
    assert world.ledger.get("hpv", 1).status is Status.OPEN


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(world: World) -> None:
    world.upload(some())
    before = (world.ledger.get("hpv", 1), world.objects())
    answer = world.export(dry_run=True)
    assert answer.status == "dry run"
    assert [(e.export_id, e.records, e.would) for e in answer.exports] == [("hpv-1", 3, "seal and send")]
    assert (world.ledger.get("hpv", 1), world.objects()) == before
    assert world.inbox() == []


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        ({"programm": "hpv"}, "unknown key 'programm' in the event; it may hold: programme, resume_only, dry_run"),
        ({"programme": "polio"}, "'programme' must be one of: flu, hpv, menacwy, mmr, mmrv, td_ipv"),
        ({"programme": ["hpv"]}, "'programme' must be one of"),
        ({"dry_run": "yes"}, "'dry_run' must be true or false"),
        ({"resume_only": 1}, "'resume_only' must be true or false"),
        ({"resend": "hpv"}, "'resend' must be the id of an export, such as hpv-17"),
        ({"resend": "polio-1"}, "'resend' must be the id of an export, such as hpv-17"),
        ({"resend": "hpv-1", "dry_run": True}, "'resend' says everything: no other key goes with it"),
    ],
)
def test_an_event_that_means_nothing_is_refused_by_name(event: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidEvent, match=re.escape(complaint)):
        ExportRequest.from_event(event)


def test_what_failed_is_sent_again_at_once_where_a_person_asks_and_nothing_else_is(world: World) -> None:
    world.recipient = NOBODY
    world.upload(some())
    world.upload(some("MenACWY", range(10, 12)))
    world.export()
    world.recipient = DPS
    world.upload(some(numbers=range(20, 22)))
    answer = world.export(resend="hpv-1")
    assert [(e.export_id, e.status) for e in answer.exports] == [("hpv-1", "accepted")]
    assert world.ledger.get("hpv", 1).local_id == "hpv-1-2"
    assert (world.ledger.get("hpv", 2).status, world.ledger.get("menacwy", 1).status) == (Status.OPEN, Status.FAILED)
    assert len(world.inbox()) == 1
    with pytest.raises(ImpossibleMove, match="hpv-1: resend is not possible, it is accepted"):
        world.export(resend="hpv-1")
    with pytest.raises(KeyError):
        world.export(resend="hpv-99")
    assert len(world.inbox()) == 1


def test_what_mesh_refuses_is_failed_with_its_code_and_tried_again_the_next_night(world: World) -> None:
    world.recipient = NOBODY
    world.upload(some())
    answer = world.export()
    assert answer.status == "incomplete"
    assert answer.exports[0].status == "failed"
    assert answer.exports[0].error_code == "12"
    world.recipient = DPS
    assert world.export(resume_only=True).exports[0].status == "failed"
    answer = world.next_night()
    assert answer.exports[0].status == "accepted"
    export = world.ledger.get("hpv", 1)
    assert (len(export.attempts), export.local_id) == (2, "hpv-1-2")
    assert len(world.inbox()) == 1


def test_an_export_is_tried_five_times_and_then_waits_for_a_person(world: World) -> None:
    world.recipient = NOBODY
    world.upload(some())
    world.export()
    for _ in range(6):
        world.next_night()
    export = world.ledger.get("hpv", 1)
    assert (export.status, len(export.attempts)) == (Status.FAILED, 5)
    assert len({attempt.filename for attempt in export.attempts}) == 5


def test_a_person_may_send_again_what_was_tried_five_times(world: World) -> None:
    world.recipient = NOBODY
    world.upload(some())
    world.export()
    for _ in range(5):
        world.next_night()
    world.recipient = DPS
    assert world.next_night().exports[0].status == "failed"
    world.resend("hpv-1")
    assert world.export(resume_only=True).exports[0].status == "accepted"
    assert len(world.inbox()) == 1


def test_a_later_export_waits_until_every_earlier_one_was_accepted(world: World) -> None:
    world.recipient = NOBODY
    world.upload(some())
    world.export()
    world.upload(some(batch="CD5678"), name="corrected.csv")
    world.export(resume_only=True)
    world.export()
    assert world.ledger.get("hpv", 2).status is Status.OPEN
    world.recipient = DPS
    world.next_night()
    assert [{r["ACTION_FLAG"] for r in rows} for _, rows in world.inbox()] == [{"new"}, {"update"}]


def test_one_programmes_trouble_does_not_stop_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.upload(upload_of(row(1, "HPV"), row(2, "MenACWY")))
    rows = world.bucket.open_rows

    def broken(programme: str, batch_id: str) -> Any:
        if programme == "hpv":
            raise OSError("the disk is on fire")
        return rows(programme, batch_id)

    monkeypatch.setattr(world.bucket, "open_rows", broken)
    answer = world.export()
    assert answer.status == "incomplete"
    assert [(e.programme, e.status) for e in answer.exports] == [("hpv", "error"), ("menacwy", "accepted")]
    monkeypatch.undo()
    assert world.export(resume_only=True).exports[0].status == "accepted"


class Losing:
    """A client whose first send arrives, and whose answer is lost."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self.sends = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def send(self, *args: Any, **options: Any) -> str:
        self.sends += 1
        self._client.send(*args, **options)
        raise SendOutcomeUnknown("the answer was lost", local_id=options["local_id"])


def test_a_lost_answer_is_not_sent_twice(world: World) -> None:
    world.upload(some())
    losing = Losing(world.client)
    answer = world.export_use_case(connect=lambda: losing).run(ExportRequest())
    assert (answer.status, answer.exports[0].status) == ("incomplete", "pending")
    # MESH gets its time: while the lease runs, nobody touches the export.
    assert world.export(resume_only=True).exports[0].status == "pending"
    world.clock.forward(hours=1)
    answer = world.export(resume_only=True)
    assert answer.exports[0].status == "accepted"
    assert losing.sends == 1
    assert len(world.inbox()) == 1


def small_parts(monkeypatch: pytest.MonkeyPatch, part_bytes: int) -> None:
    """Let parts be small, of uploads that come from now on."""
    monkeypatch.setattr("vaccinations.jobs.render.write_part", partial(write_part, part_bytes=part_bytes))
    monkeypatch.setattr("vaccinations.formats.dps_parts.MEMBER_CHARACTERS", part_bytes)


def test_a_file_of_several_parts_arrives_as_one_message(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch, 2_000)
    world.upload(some(numbers=range(200)))
    world.export()
    export = world.ledger.get("hpv", 1)
    assert export.parts > 2
    assert export.attempts[-1].parts_sent == export.parts
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows] == [uuid_of(n) for n in range(200)]


def test_a_run_out_of_time_stops_between_parts_and_the_next_goes_on_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch, 2_000)
    world.upload(some(numbers=range(200)))
    steps = 0
    export = world.ledger.get("hpv", 1)
    while not (export.attempts and export.attempts[-1].parts_sent):
        answer = world.export_use_case(seconds_left=lambda: 1.0).run(ExportRequest())
        steps += 1
        export = world.ledger.get("hpv", 1)
        assert (answer.exports[0].status, export.lease) == ("pending", None)
        assert world.inbox() == []
    # Each run has done one step: it has made one part, the last of them has sent one.
    assert steps == export.parts + 1 > 3
    assert export.attempts[-1].parts_sent == 1
    assert world.export(resume_only=True).exports[0].status == "accepted"
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows] == [uuid_of(n) for n in range(200)]


def test_each_part_is_made_once_however_many_runs_it_takes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch, 2_000)
    for name in ("one", "two", "three"):
        world.upload(some(numbers=range(60), batch=f"{name}1"), name=f"{name}.csv")
    made = []
    put_part = world.bucket.put_part

    def watched(programme: str, number: int, part: int, file: Path) -> None:
        made.append(part)
        put_part(programme, number, part, file)

    monkeypatch.setattr(world.bucket, "put_part", watched)
    while world.ledger.get("hpv", 1).status is not Status.ACCEPTED:
        world.export_use_case(seconds_left=lambda: 1.0).run(ExportRequest())
    parts = world.ledger.get("hpv", 1).parts
    assert made == list(range(1, parts + 1))
    assert parts > 5
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows] == [uuid_of(n) for n in range(60)] * 3


def test_a_batch_whose_rows_were_not_stored_is_rendered_when_it_is_needed(world: World) -> None:
    world.upload(some())
    world.upload(some(numbers=range(10, 12)), name="later.csv")
    [rows, _] = [key for key in world.objects() if key.startswith("batches/") and key.endswith(".csv.gz")]
    world.stores.delete(rows)
    world.export()
    [(_, arrived)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in arrived] == [uuid_of(n) for n in (0, 1, 2, 10, 11)]


def test_a_night_that_is_out_of_time_seals_what_it_leaves_and_the_hourly_run_sends_it(world: World) -> None:
    world.upload(upload_of(row(1, "HPV"), row(2, "MenACWY")))
    connected: list[MeshClient] = []

    def connect() -> MeshClient:
        connected.append(world.client)
        return connected[-1]

    answer = world.export_use_case(seconds_left=lambda: 1.0, connect=connect).run(ExportRequest())
    assert answer.status == "incomplete"
    assert [(e.export_id, e.status) for e in answer.exports] == [("hpv-1", "pending"), ("menacwy-1", "pending")]
    assert len(connected) == 1
    assert answer.left == ("menacwy", "mmr", "mmrv", "td_ipv")
    assert answer.nothing_to_send == ("flu",)
    assert world.inbox() == []
    # What comes in from now on is of the next night.
    world.upload(upload_of(row(3, "MenACWY")), "later.csv")
    hourly = world.export(resume_only=True)
    assert [(e.export_id, e.status) for e in hourly.exports] == [("hpv-1", "accepted"), ("menacwy-1", "accepted")]
    assert [[r["UNIQUE_ID"] for r in rows] for _, rows in world.inbox()] == [[uuid_of(1)], [uuid_of(2)]]


def test_a_dry_run_that_is_out_of_time_seals_nothing(world: World) -> None:
    world.upload(upload_of(row(1, "HPV"), row(2, "MenACWY")))
    use_case = world.export_use_case(seconds_left=lambda: 1.0)
    use_case.run(ExportRequest(dry_run=True))
    assert world.ledger.get("menacwy", 1).status is Status.OPEN


def test_two_runs_at_once_send_an_export_once(world: World) -> None:
    world.upload(some())
    answers: list[ExportRun] = []

    def while_sending() -> MeshClient:
        if not answers:
            answers.append(world.export())
        return world.client

    answer = world.export_use_case(connect=while_sending).run(ExportRequest())
    assert answer.exports[0].status == "accepted"
    assert answers[0].exports[0].status == "pending"
    assert len(world.inbox()) == 1


class Pausing:
    """A port on which something happens meanwhile, right after one of the calls of a method."""

    def __init__(self, port: Any, call: str, which: int, meanwhile: Callable[[], object]) -> None:
        self._port = port
        self._call = call
        self._left = which
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name != self._call:
            return method

        def call(*args: Any, **options: Any) -> Any:
            answer = method(*args, **options)
            self._left -= 1
            if self._left == 0:
                self._meanwhile()
            return answer

        return call


@pytest.mark.parametrize(
    ("port", "call", "which"),
    [
        ("bucket", "put_part", 1),
        ("bucket", "put_manifest", 1),
        ("ledger", "change", 1),  # it has taken the lease
        ("ledger", "change", 2),  # it is about to send
        ("ledger", "change", 3),  # it has sent the first part
    ],
)
def test_a_run_that_slept_through_its_lease_sends_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch, port: str, call: str, which: int
) -> None:
    if which == 3:
        small_parts(monkeypatch, 2_000)
    world.upload(some(numbers=range(200)))
    answers: list[ExportRun] = []

    def another_run() -> None:
        world.clock.forward(hours=1)
        answers.append(world.export(resume_only=True))

    sleepy: Any = {port: Pausing(getattr(world, port), call, which, another_run)}
    answer = world.export_use_case(**sleepy).run(ExportRequest())
    assert answers[0].exports[0].status == "accepted"
    assert answer.exports[0].status == "accepted"
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows] == [uuid_of(n) for n in range(200)]
    assert world.ledger.get("hpv", 1).message_id == answers[0].exports[0].message_id


@on_sandbox
def test_an_export_costs_a_fixed_handful_of_writes(
    world: World, count_writes: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def writes(records: int) -> int:
        world.upload(some(numbers=range(10_000 * records, 10_000 * records + records)), name=f"{records}.csv")
        before = count_writes()
        assert world.export().exports[0].status == "accepted"
        return count_writes() - before

    assert writes(1) == writes(5) == writes(300) == 6
    small_parts(monkeypatch, 1_000)
    few, many = writes(100), writes(400)
    parts = [export.parts for export in world.ledger.exports("hpv")]
    assert parts[3] > 10
    assert parts[4] > 40
    assert few == many == 10
