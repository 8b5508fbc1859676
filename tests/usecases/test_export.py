"""Promises of the nightly export, over NHS England's sandbox and moto's server."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import vaccinations.formats.dps_columns
import vaccinations.jobs.export
from nhs_mesh import MeshClient, SendOutcomeUnknown
from tests.usecases.world import World, row, upload_of, uuid_of
from vaccinations.aws.ledger import Status
from vaccinations.formats.dps_columns import COLUMNS, write_part
from vaccinations.jobs.export import ExportRequest, InvalidEvent, file_names
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.settings import FilenameStyle
from vaccinations.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def some(programme: str = "HPV", numbers: range = range(3), **options: str) -> str:
    return upload_of(*(row(n, programme, **options) for n in numbers))


def test_each_programme_with_unsent_records_gets_one_file(world: World) -> None:
    world.upload(upload_of(row(1, "HPV"), row(2, "MenACWY"), row(3, "HPV")))
    answer = world.export()
    assert answer["status"] == "ok"
    assert [(e["export_id"], e["programme"], e["status"], e["records"]) for e in answer["exports"]] == [
        ("hpv-1", "hpv", "accepted", 2),
        ("menacwy-1", "menacwy", "accepted", 1),
    ]
    assert answer["nothing_to_send"] == ["flu", "mmr", "mmrv", "td_ipv"]
    files = dict(world.inbox())
    assert [r["UNIQUE_ID"] for r in files[f"Vaccinations-HPV-{world.clock():%Y-%m-%d}.csv"]] == [uuid_of(1), uuid_of(3)]
    assert [r["UNIQUE_ID"] for r in files[f"Vaccinations-MenACWY-{world.clock():%Y-%m-%d}.csv"]] == [uuid_of(2)]


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


def test_a_second_run_sends_nothing(world: World) -> None:
    world.upload(some())
    world.export()
    answer = world.export()
    assert (answer["exports"], len(answer["nothing_to_send"])) == ([], len(PROGRAMMES))
    assert len(world.inbox()) == 1


def test_records_of_later_uploads_go_into_the_next_file_of_the_day(world: World) -> None:
    world.upload(some())
    world.export()
    world.upload(some(numbers=range(10, 12)), name="later.csv")
    world.export()
    day = f"{world.clock():%Y-%m-%d}"
    assert [(name, len(rows)) for name, rows in world.inbox()] == [
        (f"Vaccinations-HPV-{day}.csv", 3),
        (f"Vaccinations-HPV-{day}-2.csv", 2),
    ]


def test_rows_keep_the_order_in_which_they_were_taken_in(world: World) -> None:
    for start in (20, 10, 30):
        world.upload(some(numbers=range(start, start + 3)), name=f"{start}.csv")
    world.export()
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows] == [uuid_of(n) for start in (20, 10, 30) for n in range(start, start + 3)]


def test_the_log_says_what_was_sent_as_the_guide_shows_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    logger.addHandler(caplog.handler)
    world.upload(some())
    message_id = world.export()["exports"][0]["message_id"]
    assert f'DPS export (hpv-1) for programme (hpv) sent: 202 - {{"message_id":"{message_id}"}}' in caplog.messages
    assert "No vaccination records to export for programme flu" in caplog.messages


def test_a_single_programme_can_be_exported(world: World) -> None:
    world.upload(upload_of(row(1, "HPV"), row(2, "MenACWY")))
    answer = world.export(programme="menacwy")
    assert [e["export_id"] for e in answer["exports"]] == ["menacwy-1"]
    assert answer["nothing_to_send"] == []


def test_resume_only_seals_nothing(world: World) -> None:
    world.upload(some())
    assert world.export(resume_only=True)["exports"] == []
    assert world.ledger.get("hpv", 1).status is Status.OPEN


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(world: World) -> None:
    world.upload(some())
    before = (world.ledger.get("hpv", 1), world.objects())
    answer = world.export(dry_run=True)
    assert answer["status"] == "dry run"
    assert [(e["export_id"], e["records"], e["would"]) for e in answer["exports"]] == [("hpv-1", 3, "seal and send")]
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
    ],
)
def test_an_event_that_means_nothing_is_refused_by_name(event: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidEvent, match=re.escape(complaint)):
        ExportRequest.from_event(event)


def test_what_mesh_refuses_is_failed_with_its_code_and_tried_again_the_next_night(world: World) -> None:
    right = world.settings
    world.settings = replace(right, dps_mailbox="NOSUCHBOX")
    world.upload(some())
    answer = world.export()
    assert answer["status"] == "incomplete"
    assert answer["exports"][0]["status"] == "failed"
    assert answer["exports"][0]["error"]["code"] == "12"
    world.settings = right
    assert world.export(resume_only=True)["exports"][0]["status"] == "failed"
    answer = world.next_night()
    assert answer["exports"][0]["status"] == "accepted"
    export = world.ledger.get("hpv", 1)
    assert (export.attempt, export.local_id) == (2, "hpv-1-2")
    assert len(world.inbox()) == 1


def test_an_export_is_tried_five_times_and_then_waits_for_a_person(world: World) -> None:
    world.settings = replace(world.settings, dps_mailbox="NOSUCHBOX")
    world.upload(some())
    world.export()
    for _ in range(6):
        world.next_night()
    export = world.ledger.get("hpv", 1)
    assert (export.status, export.attempt) == (Status.FAILED, 5)
    assert len({export.filename, *(earlier["filename"] for earlier in export.earlier)}) == 5


def test_a_person_may_send_again_what_was_tried_five_times(world: World) -> None:
    right = world.settings
    world.settings = replace(right, dps_mailbox="NOSUCHBOX")
    world.upload(some())
    world.export()
    for _ in range(5):
        world.next_night()
    world.settings = right
    assert world.next_night()["exports"][0]["status"] == "failed"
    world.ledger.retry(world.ledger.get("hpv", 1), file_names(PROGRAMMES["hpv"], right))
    assert world.export(resume_only=True)["exports"][0]["status"] == "accepted"
    assert len(world.inbox()) == 1


def test_a_later_export_waits_until_every_earlier_one_was_accepted(world: World) -> None:
    right = world.settings
    world.settings = replace(right, dps_mailbox="NOSUCHBOX")
    world.upload(some())
    world.export()
    world.upload(some(batch="CD5678"), name="corrected.csv")
    world.export(resume_only=True)
    world.export()
    assert world.ledger.get("hpv", 2).status is Status.OPEN
    world.settings = right
    world.next_night()
    assert [{r["ACTION_FLAG"] for r in rows} for _, rows in world.inbox()] == [{"new"}, {"update"}]


def test_one_programmes_trouble_does_not_stop_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.upload(upload_of(row(1, "HPV"), row(2, "MenACWY")))
    rows = world.archive.open_rows

    def broken(programme: str, batch_id: str) -> Any:
        if programme == "hpv":
            raise OSError("the disk is on fire")
        return rows(programme, batch_id)

    monkeypatch.setattr(world.archive, "open_rows", broken)
    answer = world.export()
    assert answer["status"] == "incomplete"
    assert [(e["programme"], e["status"]) for e in answer["exports"]] == [("hpv", "error"), ("menacwy", "accepted")]
    monkeypatch.undo()
    assert world.export(resume_only=True)["exports"][0]["status"] == "accepted"


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
    assert (answer["status"], answer["exports"][0]["status"]) == ("incomplete", "pending")
    # MESH gets its time: while the lease runs, nobody touches the export.
    assert world.export(resume_only=True)["exports"][0]["status"] == "pending"
    world.clock.forward(hours=1)
    answer = world.export(resume_only=True)
    assert answer["exports"][0]["status"] == "accepted"
    assert losing.sends == 1
    assert len(world.inbox()) == 1


def small_parts(monkeypatch: pytest.MonkeyPatch, part_bytes: int) -> None:
    """Let parts be small, of uploads that come from now on."""
    monkeypatch.setattr(vaccinations.jobs.export, "write_part", partial(write_part, part_bytes=part_bytes))
    monkeypatch.setattr(vaccinations.formats.dps_columns, "MEMBER_CHARACTERS", part_bytes)


def test_a_file_of_several_parts_arrives_as_one_message(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch, 2_000)
    world.upload(some(numbers=range(200)))
    world.export()
    export = world.ledger.get("hpv", 1)
    assert export.parts > 2
    assert export.parts_sent == export.parts
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows] == [uuid_of(n) for n in range(200)]


def test_a_run_out_of_time_stops_between_parts_and_the_next_goes_on_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch, 2_000)
    world.upload(some(numbers=range(200)))
    steps = 0
    export = world.ledger.get("hpv", 1)
    while not export.parts_sent:
        answer = world.export_use_case(seconds_left=lambda: 1.0).run(ExportRequest())
        steps += 1
        export = world.ledger.get("hpv", 1)
        assert (answer["exports"][0]["status"], export.lease) == ("pending", None)
        assert world.inbox() == []
    # Each run has done one step: it has made one part, the last of them has sent one.
    assert steps == export.parts + 1 > 3
    assert export.parts_sent == 1
    assert world.export(resume_only=True)["exports"][0]["status"] == "accepted"
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows] == [uuid_of(n) for n in range(200)]


def test_each_part_is_made_once_however_many_runs_it_takes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch, 2_000)
    for name in ("one", "two", "three"):
        world.upload(some(numbers=range(60), batch=f"{name}1"), name=f"{name}.csv")
    made = []
    put_part = world.archive.put_part

    def watched(programme: str, number: int, part: int, file: Path) -> None:
        made.append(part)
        put_part(programme, number, part, file)

    monkeypatch.setattr(world.archive, "put_part", watched)
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
    world.s3.delete_object(Bucket=world.settings.bucket, Key=rows)
    world.export()
    [(_, arrived)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in arrived] == [uuid_of(n) for n in (0, 1, 2, 10, 11)]


def test_a_run_out_of_time_hands_over_the_programme_it_is_at_and_those_it_has_not_begun(world: World) -> None:
    world.upload(upload_of(row(1, "HPV"), row(2, "MenACWY")))
    handed_over: list[Any] = []
    hurried = world.export_use_case(seconds_left=lambda: 1.0, hand_over=handed_over.append)
    answer = hurried.run(ExportRequest())
    assert handed_over == [
        {"programme": programme, "resume_only": False} for programme in ("hpv", "menacwy", "mmr", "mmrv", "td_ipv")
    ]
    assert answer["handed_over"] == [event["programme"] for event in handed_over]
    for event in handed_over:
        world.export(**event)
    assert len(world.inbox()) == 2


def test_a_run_that_gets_nothing_done_hands_nothing_over(world: World) -> None:
    """So that no runs follow each other for ever."""
    handed_over: list[Any] = []
    hurried = world.export_use_case(seconds_left=lambda: 1.0, hand_over=handed_over.append)
    assert hurried.run(ExportRequest())["handed_over"] == []
    world.upload(some())
    right = world.settings
    hurried = replace(hurried, settings=replace(right, dps_mailbox="NOSUCHBOX"))
    while world.ledger.get("hpv", 1).status is not Status.FAILED:
        handed_over.clear()
        replace(hurried).run(ExportRequest())
    assert [event["programme"] for event in handed_over] == []


def test_where_handing_over_fails_the_hourly_run_goes_on(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.upload(some())

    def refuse(_: object) -> None:
        raise ConnectionError

    hurried = world.export_use_case(seconds_left=lambda: 1.0, hand_over=refuse)
    answer = hurried.run(ExportRequest(programme="hpv"))
    assert (answer["status"], answer["handed_over"]) == ("incomplete", [])
    assert '"HandOversFailed":[1.0]' in capfd.readouterr().out
    assert world.export(resume_only=True)["exports"][0]["status"] == "accepted"
    assert len(world.inbox()) == 1


def test_two_runs_at_once_send_an_export_once(world: World) -> None:
    world.upload(some())
    answers: list[dict[str, Any]] = []

    def while_sending() -> MeshClient:
        if not answers:
            answers.append(world.export())
        return world.client

    answer = world.export_use_case(connect=while_sending).run(ExportRequest())
    assert answer["exports"][0]["status"] == "accepted"
    assert answers[0]["exports"][0]["status"] == "pending"
    assert len(world.inbox()) == 1


class Pausing:
    """A room in which something happens meanwhile, once, right after a call."""

    def __init__(self, room: Any, call: str, meanwhile: Callable[[], object]) -> None:
        self._room = room
        self._call = call
        self._meanwhile: list[Callable[[], object]] = [meanwhile]

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._room, name)
        if name != self._call:
            return method

        def call(*args: Any, **options: Any) -> Any:
            answer = method(*args, **options)
            while self._meanwhile:
                self._meanwhile.pop()()
            return answer

        return call


@pytest.mark.parametrize(
    ("room", "call"),
    [
        ("ledger", "lease"),
        ("archive", "put_part"),
        ("archive", "put_manifest"),
        ("ledger", "begin_sending"),
        ("ledger", "sent"),
    ],
)
def test_a_run_that_slept_through_its_lease_sends_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch, room: str, call: str
) -> None:
    if call == "sent":
        small_parts(monkeypatch, 2_000)
    world.upload(some(numbers=range(200)))
    answers: list[dict[str, Any]] = []

    def another_run() -> None:
        world.clock.forward(hours=1)
        answers.append(world.export(resume_only=True))

    sleepy: Any = {room: Pausing(getattr(world, room), call, another_run)}
    answer = world.export_use_case(**sleepy).run(ExportRequest())
    assert answers[0]["exports"][0]["status"] == "accepted"
    assert answer["exports"][0]["status"] == "accepted"
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows] == [uuid_of(n) for n in range(200)]
    assert world.ledger.get("hpv", 1).message_id == answers[0]["exports"][0]["message_id"]


def test_an_export_costs_a_fixed_handful_of_writes(
    world: World, count_writes: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def writes(records: int) -> int:
        world.upload(some(numbers=range(10_000 * records, 10_000 * records + records)), name=f"{records}.csv")
        before = count_writes()
        assert world.export()["exports"][0]["status"] == "accepted"
        return count_writes() - before

    assert writes(1) == writes(5) == writes(300) == 6
    small_parts(monkeypatch, 1_000)
    few, many = writes(100), writes(400)
    parts = [export.parts for export in world.ledger.exports("hpv")]
    assert parts[3] > 10
    assert parts[4] > 40
    assert few == many == 10


def test_a_file_name_holds_only_safe_characters_and_the_london_day(world: World) -> None:
    name = file_names(PROGRAMMES["td_ipv"], world.settings)
    from datetime import UTC, datetime

    assert name(datetime(2024, 8, 23, 22, 59, tzinfo=UTC), 1)[0] == "Vaccinations-Td-IPV-2024-08-23.csv"
    assert name(datetime(2024, 8, 23, 23, 0, tzinfo=UTC), 3)[0] == "Vaccinations-Td-IPV-2024-08-24-3.csv"


def test_the_batch_service_gets_the_file_names_it_wants(world: World) -> None:
    from datetime import UTC, datetime

    settings = replace(world.settings, filename_style=FilenameStyle.BATCH_V5, ods_code="n1g3b")
    name = file_names(PROGRAMMES["td_ipv"], settings)
    summer, winter = datetime(2024, 8, 23, 22, 15, 9, tzinfo=UTC), datetime(2024, 12, 23, 22, 15, 9, tzinfo=UTC)
    assert name(summer, 1)[1] == "3IN1_Vaccinations_v5_N1G3B_20240823T23150901.csv"
    assert name(winter, 1)[1] == "3IN1_Vaccinations_v5_N1G3B_20241223T22150900.csv"
