"""Promises of hearing DPS's answers, in memory, and on moto's server and the sandbox, and DPS's stand-in behind."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from local.dps import Dps, RecordOnFile, VaccinationFile, identifier
from tests.usecases.rows import row, upload_of, uuid_of
from vaccinations.formats.dps_columns import local_id_of
from vaccinations.formats.dps_names import FilenameStyle
from vaccinations.model.export import Processing, Status
from vaccinations.model.outcome import OnFile, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.usecases.world import World
    from vaccinations.model.entry import Entry
    from vaccinations.model.export import DPSExport
    from vaccinations.results import CollectRun

INVALID = "Validation errors: contained[?(@.resourceType=='Patient')].name[0].given of Zephyrson | does not do"


@pytest.fixture
def refusals() -> dict[str, str]:
    """Which records DPS refuses, and why; a test fills it."""
    return {}


@pytest.fixture
def metrics(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[str, float]]:
    """Return what was counted and measured since last asked, by name."""

    def read() -> dict[str, float]:
        found: dict[str, float] = {}
        for line in capsys.readouterr().out.splitlines():
            if line.startswith('{"_aws"'):
                document = json.loads(line)
                for metric in document["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                    [value] = document[metric["Name"]]
                    so_far = found.get(metric["Name"], 0) if metric["Unit"] == "Count" else 0
                    found[metric["Name"]] = so_far + value
        return found

    return read


@pytest.fixture
def dps(world: World, refusals: dict[str, str]) -> Dps:
    return Dps(world.receiver, refuse=lambda row: refusals.get(row["UNIQUE_ID"]), clock=world.clock)


def sent(world: World, dps: Dps, *rows: str, name: str = "monday.csv", organisation: str = "R1L") -> VaccinationFile:
    """Have rows uploaded, exported and picked up by DPS, which does not answer yet."""
    world.upload(upload_of(*rows), name, organisation)
    world.next_night()
    [file] = dps.pick_up()
    world.track()
    return file


def answer(world: World, dps: Dps | None, *which: str, file: VaccinationFile | None = None) -> None:
    """Have DPS answer the last file with some of its answers, each told by a part of its name."""
    answered = file or (dps and dps.files[-1])
    assert answered
    for name, body in answered.answers():
        if not which or any(part in name for part in which):
            world.receiver.send_file("X26ABC1", "dps export ack", body, filename=name)


def hear(world: World, dps: Dps, *which: str) -> list[str]:
    answer(world, dps, *which)
    return outcomes(world.collect())


def outcomes(collected: CollectRun) -> list[str]:
    assert collected.status == "ok"
    return [message.answer.outcome for message in collected.messages if message.answer]


def export(world: World, number: int = 1) -> DPSExport:
    return world.ledger.get("hpv", number)


def entry(world: World, n: int) -> Entry:
    return world.register.get([uuid_of(n)])[uuid_of(n)]


def counts(world: World, number: int = 1) -> tuple[Processing | None, int | None, int | None]:
    found = export(world, number)
    return found.processing, found.attempts[-1].rows_processed, found.attempts[-1].rows_refused


# --- the file as a whole


@pytest.mark.parametrize("style", ["guide", "batch-v5"])
@pytest.mark.parametrize("change", [str, str.upper, str.lower])
def test_an_inf_ack_finds_its_export_by_name_in_any_case_and_either_style(
    world: World, dps: Dps, style: str, change: Callable[[str], str]
) -> None:
    world.style = FilenameStyle(style)
    file = sent(world, dps, row(1))
    file.name = change(file.name)
    # DPS knows the names of one style only.
    expected = Processing.REFUSED if style == "guide" else Processing.RECEIVED
    assert hear(world, dps, "InfAck") == [expected]
    found = export(world)
    assert (found.processing, found.status) == (expected, Status.ACKNOWLEDGED)


def test_a_file_that_dps_refuses_is_counted_and_waits_for_a_person(
    world: World, dps: Dps, metrics: Callable[[], dict[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    file = sent(world, dps, row(1))
    sent(world, dps, row(2))
    file.problem = "its headers are missing or wrong"
    answer(world, dps, "InfAck", file=file)
    assert outcomes(world.collect()) == ["refused"]
    found = export(world)
    assert (found.processing, found.status) == (Processing.REFUSED, Status.ACKNOWLEDGED)
    assert found.attempts[-1].refusal == "10001/10002"
    assert metrics()["ExportsRefused"] == 1
    # DPS leaves later files waiting until it has cleared this one.
    [said] = [record for record in caplog.records if "as a whole" in record.message]
    assert vars(said)["behind_it"] == ["hpv-2"]
    assert world.next_night().exports == ()  # not by itself


def test_an_answer_to_an_earlier_attempt_is_noted_with_it_and_nothing_else(
    world: World, dps: Dps, refusals: dict[str, str]
) -> None:
    refusals[uuid_of(1)] = INVALID
    file = sent(world, dps, row(1))
    # As though MESH had known several messages of that attempt, and a person had decided.
    world.ledger.change(export(world), lambda e: replace(e, status=Status.UNCLEAR))
    world.resend("hpv-1")
    assert {*hear(world, dps)} == {"about an earlier attempt"}
    assert file.refused
    assert entry(world, 1).refusal is None
    assert counts(world) == (None, None, None)
    assert export(world).attempts[0].processing is Processing.PROCESSED


def test_without_answers_exports_end_as_acknowledged_and_nothing_waits(
    world: World, dps: Dps, metrics: Callable[[], dict[str, float]]
) -> None:
    sent(world, dps, row(1))
    world.clock.forward(days=9)
    assert world.collect().messages == ()
    assert (export(world).status, counts(world)) == (Status.ACKNOWLEDGED, (None, None, None))
    assert metrics()["OldestUnprocessedHours"] == 0


def test_the_age_of_the_oldest_file_without_an_answer_is_told_once_dps_has_answered_one(
    world: World, dps: Dps, metrics: Callable[[], dict[str, float]]
) -> None:
    sent(world, dps, row(1))
    hear(world, dps)
    sent(world, dps, row(2))
    sent(world, dps, row(3))
    hear(world, dps, "InfAck")  # that it is received is not yet that it is processed
    metrics()
    world.clock.forward(hours=5)
    world.collect()
    assert metrics()["OldestUnprocessedHours"] == pytest.approx(29, abs=0.1)


# --- its rows


@pytest.mark.parametrize(
    "order",
    [["InfAck", "BusAck"], ["BusAck", "InfAck"], [".csv"], [".json"], [".json", ".csv"], ["BusAck"] * 2],
    ids=" ".join,
)
def test_a_bus_ack_in_any_order_and_number_counts_once(
    world: World,
    dps: Dps,
    refusals: dict[str, str],
    order: list[str],
    metrics: Callable[[], dict[str, float]],
) -> None:
    refusals |= {uuid_of(2): INVALID, uuid_of(4): "No permissions for requested operation"}
    sent(world, dps, *map(row, range(1, 6)))
    told = [outcome for which in order for outcome in hear(world, dps, which)]
    assert told.count("processed") == 1
    assert counts(world) == (Processing.PROCESSED, 3, 2)
    seen = metrics()
    assert (seen["RecordsProcessed"], seen["RecordsRefused"], seen["ExportsProcessed"]) == (3, 2, 1)
    for n, outcome in ((2, Outcome.INVALID), (4, Outcome.NOT_PERMITTED)):
        refused = entry(world, n).refusal
        assert refused
        assert (refused.outcome, refused.export_id, refused.row) == (outcome, "hpv-1", n)
        assert entry(world, n).on_file is OnFile.NO
    assert entry(world, 3).refusal is None


def test_a_file_of_which_dps_refused_no_row_is_processed_without_refusals(world: World, dps: Dps) -> None:
    sent(world, dps, row(1), row(2))
    hear(world, dps, "BusAck")
    assert counts(world) == (Processing.PROCESSED, 2, 0)


def test_those_who_uploaded_are_told_which_line_was_refused_and_why(
    world: World, dps: Dps, refusals: dict[str, str]
) -> None:
    refusals |= {uuid_of(n): INVALID for n in (2, 5)}
    world.upload(upload_of(row(1), row(2)), "monday.csv", "R1L")
    world.upload(upload_of(row(3), row(4), row(5)), "monday.csv", "R2L")
    sent(world, dps, row(6))
    hear(world, dps)
    keys = sorted(key for key in world.objects() if "-refused-" in key)
    assert [key.split("/")[:3] for key in keys] == [["receipts", o, "monday.csv"] for o in ("R1L", "R2L")]
    for key, line in zip(keys, (3, 4), strict=True):
        [told] = world.stores.faults(key)
        assert told == {
            "line": str(line),
            "column": "PERSON_FORENAME",
            "what is wrong": f"DPS refused it (invalid): {INVALID}",
            "what would be right": Outcome.INVALID.fix,
        }


def test_a_row_that_the_export_never_held_is_reported_and_not_believed(
    world: World, dps: Dps, refusals: dict[str, str], metrics: Callable[[], dict[str, float]]
) -> None:
    refusals[uuid_of(2)] = INVALID
    file = sent(world, dps, row(1), row(2), row(3))
    [genuine] = file.refused
    strangers = [
        (1, local_id_of(uuid_of(3))),  # another record than that row's
        (2, local_id_of(uuid_of(1))),
        (2, local_id_of(uuid_of(2))),
        (2, local_id_of(uuid_of(3))),  # whatever else is said of a row, what is true of it counts
        (0, local_id_of(uuid_of(1))),
        (9, local_id_of(uuid_of(1))),  # there are three rows
        (9_999_999, "nonsense"),
    ]
    body = next(body for name, body in file.answers() if "BusAck" in name and name.endswith(".csv")).decode()
    header, line = body.splitlines()
    cells = line.split("|")
    lines = ["|".join([f"{file.file_id}^{n}", *cells[1:10], local_id, *cells[11:]]) for n, local_id in strangers]
    name = f"{file.name.rpartition('.')[0]}_BusAck_20261123T12000000.csv"
    world.receiver.send_file("X26ABC1", "acks", "".join(f"{x}\n" for x in [header, *lines]).encode(), filename=name)
    assert genuine.number == 2
    [message] = world.collect().messages
    assert message.answer
    assert message.answer.not_believed == metrics()["RowsNotBelieved"] == 6
    # What became of the first row nobody knows: it counts neither as processed nor as refused.
    assert counts(world) == (Processing.PROCESSED, 1, 1)
    assert [bool(entry(world, n).refusal) for n in (1, 2, 3)] == [False, True, False]


@pytest.mark.parametrize(
    ("name", "body", "outcome"),
    [
        ("somebody-elses-file_BusAck_20261123T12000000.csv", b"", "unmatched"),
        ("{stem}_BusAck_20261123T12000000.csv", b"nonsense", "unreadable"),
        ("{stem}_InfAck_20261123T12000000.csv", b"nonsense", "unreadable"),
    ],
)
def test_an_answer_that_cannot_be_applied_is_kept_and_reported_and_changes_nothing(
    world: World,
    dps: Dps,
    name: str,
    body: bytes,
    outcome: str,
    metrics: Callable[[], dict[str, float]],
) -> None:
    file = sent(world, dps, row(1))
    name = name.format(stem=file.name.rpartition(".")[0])
    world.receiver.send_file("X26ABC1", "dps export ack", body, filename=name)
    [message] = world.collect().messages
    assert message.answer
    assert message.answer.outcome == outcome
    assert world.object(message.key) == body
    assert list(world.client.inbox()) == []
    assert counts(world) == (None, None, None)
    assert metrics()["AnswersUnmatched" if outcome == "unmatched" else "MessagesUnreadable"] == 1


def test_an_answer_from_another_mailbox_than_dpss_changes_nothing(
    world: World, dps: Dps, metrics: Callable[[], dict[str, float]]
) -> None:
    sent(world, dps, row(1))
    world.answers_from = "X26ABC2"
    assert set(heard := hear(world, dps)) == {"unmatched"}
    assert counts(world) == (None, None, None)
    assert metrics()["AnswersUnmatched"] == len(heard)
    world.answers_from = world.recipient
    assert "processed" in hear(world, dps)
    assert counts(world) == (Processing.PROCESSED, 1, 0)


def inf_ack(world: World, file: VaccinationFile, *, problem: str = "", arrival: str = "") -> list[str]:
    """Have DPS send an InfAck about a file: of this arrival, or of another one, which has an id of its own."""
    said = replace(file, problem=problem, file_id=arrival or file.file_id)
    answer(world, None, "InfAck", file=said)
    return outcomes(world.collect())


WRONG = "it is refused as a whole"


def test_an_inf_ack_is_kept_with_the_attempt_by_dpss_own_id(world: World, dps: Dps) -> None:
    file = sent(world, dps, row(1))
    hear(world, dps, "BusAck")
    hear(world, dps, "InfAck")
    arrival = world.attempt().arrival
    assert arrival
    assert arrival.header_id == file.file_id
    assert arrival.received_time == f"{file.received_at:%Y%m%dT%H%M%S}00"


@pytest.mark.parametrize("order", [1, -1])
def test_a_second_arrival_of_a_file_that_dps_refuses_leaves_the_first_received(
    world: World, dps: Dps, order: int, metrics: Callable[[], dict[str, float]]
) -> None:
    file = sent(world, dps, row(1))
    for problem, arrival in [("", ""), (WRONG, "another")][::order]:
        inf_ack(world, file, problem=problem, arrival=arrival)
    assert export(world).processing is Processing.RECEIVED
    assert world.attempt().refusal == ""
    assert "AnswersContradicting" not in metrics()
    assert hear(world, dps, "BusAck").count("processed") == 1


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_that_dps_received_and_then_failed_to_move_is_refused(world: World, dps: Dps, order: int) -> None:
    file = sent(world, dps, row(1))
    for problem in ["", WRONG][::order]:
        inf_ack(world, file, problem=problem)
    assert export(world).processing is Processing.REFUSED
    assert world.attempt().refusal == "10001/10002"


def test_a_file_that_was_refused_and_came_again_is_believed_to_be_received(world: World, dps: Dps) -> None:
    file = sent(world, dps, row(1))
    assert inf_ack(world, file, problem=WRONG) == ["refused"]
    assert inf_ack(world, file, arrival="another") == ["received"]
    assert inf_ack(world, file, problem=WRONG) == ["about another arrival"]
    assert export(world).processing is Processing.RECEIVED


def test_a_bus_ack_counts_against_an_inf_ack_that_refuses_the_file(
    world: World, dps: Dps, refusals: dict[str, str], metrics: Callable[[], dict[str, float]]
) -> None:
    refusals[uuid_of(1)] = INVALID
    file = sent(world, dps, row(1), row(2))
    assert inf_ack(world, file, problem=WRONG) == ["refused"]
    assert sorted(hear(world, dps, "BusAck")) == ["known already", "processed"]
    assert counts(world) == (Processing.PROCESSED, 1, 1)
    assert inf_ack(world, file, problem=WRONG) == ["contradiction"]
    assert counts(world) == (Processing.PROCESSED, 1, 1)
    assert metrics()["AnswersContradicting"] == 1


@pytest.mark.parametrize("folder", ["ack/", "forwardedFile/"])
def test_an_answer_is_known_with_the_folder_of_dpss_bucket_before_its_name(world: World, dps: Dps, folder: str) -> None:
    file = sent(world, dps, row(1))
    for name, body in file.answers():
        world.receiver.send_file("X26ABC1", "dps export ack", body, filename=folder + name)
    assert sorted(outcomes(world.collect())) == ["known already", "processed", "received"]


def test_rows_that_dps_lists_twice_count_once(world: World, dps: Dps, refusals: dict[str, str]) -> None:
    refusals[uuid_of(1)] = INVALID
    for n, which in enumerate((".csv", ".json")):
        file = sent(world, dps, row(1, batch=f"CD{n}"), row(2 + n))
        file.acknowledged_twice = True
        assert "processed" in hear(world, dps, which)
        assert counts(world, n + 1) == (Processing.PROCESSED, 1, 1)


def test_a_reason_that_is_not_known_is_counted_for_an_alarm_and_concludes_nothing(
    world: World, dps: Dps, refusals: dict[str, str], metrics: Callable[[], dict[str, float]]
) -> None:
    refusals |= {uuid_of(1): "Unable to determine diagnostics issue", uuid_of(2): INVALID}
    sent(world, dps, row(1), row(2))
    hear(world, dps)
    assert metrics()["RefusalsNotUnderstood"] == 1
    assert [entry(world, n).on_file for n in (1, 2)] == [OnFile.UNKNOWN, OnFile.NO]
    refusals.clear()
    assert world.request("again.resend", f"{uuid_of(1)}\n").accepted == {"hpv": {"new": 1}}


def test_what_dps_says_of_a_row_is_in_no_log(
    world: World, dps: Dps, refusals: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    refusals[uuid_of(1)] = INVALID
    sent(world, dps, row(1))
    hear(world, dps)
    written = capsys.readouterr()
    assert "Validation errors" not in written.out + written.err
    assert "Zephyrson" not in written.out + written.err


# --- what follows


def test_a_record_whose_new_was_refused_goes_out_as_new_when_it_is_corrected(
    world: World, dps: Dps, refusals: dict[str, str]
) -> None:
    refusals[uuid_of(1)] = INVALID
    sent(world, dps, row(1))
    hear(world, dps)
    assert world.upload(upload_of(row(1))).unchanged == 1  # not corrected: not sent again
    refusals.clear()
    file = sent(world, dps, row(1, batch="CD5678"))
    assert [judged.row["ACTION_FLAG"] for judged in file.rows] == ["new"]
    assert not file.refused
    hear(world, dps)
    assert counts(world, 2) == (Processing.PROCESSED, 1, 0)
    assert (entry(world, 1).on_file, entry(world, 1).refusal) == (OnFile.YES, None)
    assert [judged.row["ACTION_FLAG"] for judged in sent(world, dps, row(1, batch="EF9012")).rows] == ["update"]


def test_a_duplicate_counts_as_processed_and_is_followed_by_an_update(world: World, dps: Dps) -> None:
    """DPS has the identifier, from the system before this one, say; nobody knows with which content."""
    [judged] = sent(world, dps, row(2, batch="OLD001")).rows
    old = {**judged.row, "UNIQUE_ID": uuid_of(1)}
    dps.on_file[identifier(old)] = RecordOnFile(old, deleted=False)
    file = sent(world, dps, row(1), row(3))
    assert [bool(judged.refused) for judged in file.rows] == [True, False]
    hear(world, dps)
    assert counts(world, 2) == (Processing.PROCESSED, 2, 0)
    assert not [key for key in world.objects() if "-refused-" in key]
    world.do_requests()
    assert [*world.register.refused("hpv")] == []
    world.next_night()
    [file] = dps.pick_up()
    assert [(judged.row["ACTION_FLAG"], judged.row["BATCH_NUMBER"], judged.refused) for judged in file.rows] == [
        ("update", "AB1234", "")
    ]
    hear(world, dps)
    world.do_requests()
    assert world.next_night().exports == ()


def test_a_correction_that_overtook_the_answer_is_left_alone_by_it(
    world: World, dps: Dps, refusals: dict[str, str]
) -> None:
    refusals[uuid_of(1)] = INVALID
    sent(world, dps, row(1))
    world.upload(upload_of(row(1, batch="CD5678")))
    hear(world, dps)
    assert entry(world, 1).refusal is None
    assert counts(world) == (Processing.PROCESSED, 0, 1)
    refusals.clear()
    world.next_night()
    [file] = dps.pick_up()
    assert [judged.refused.partition(".")[0] for judged in file.rows] == ["Immunization resource does not exist"]
    hear(world, dps)
    found = entry(world, 1)
    assert (found.on_file, found.refusal and found.refusal.outcome) == (OnFile.NO, Outcome.UNKNOWN)
    again = world.request("again.resend", f"{uuid_of(1)}\n")
    assert again.accepted == {"hpv": {"new": 1}}
    world.next_night()
    [file] = dps.pick_up()
    assert [(judged.row["BATCH_NUMBER"], judged.refused) for judged in file.rows] == [("CD5678", "")]
    hear(world, dps)
    assert entry(world, 1).refusal is None


def test_a_record_is_sent_again_as_what_dps_would_take(world: World, dps: Dps, refusals: dict[str, str]) -> None:
    sent(world, dps, *map(row, (1, 2, 3)))
    hear(world, dps)
    refusals |= {uuid_of(n): "No permissions for requested operation" for n in (1, 2, 4, 5)}
    sent(world, dps, row(1, batch="CD5678"), row(2, vaccinated="N"), row(4), row(5))
    hear(world, dps)
    sent(world, dps, row(5, vaccinated="N"))
    hear(world, dps)
    refusals.clear()
    ids = "\n".join([*map(uuid_of, (1, 2, 3, 4, 5, 6)), "nonsense", uuid_of(4).upper(), ""])
    receipt = world.request("again.resend", ids)
    assert receipt.accepted == {"hpv": {"update": 1, "delete": 2, "new": 1}}
    assert (receipt.unchanged, receipt.rejected) == (1, 3)
    assert [(reject["line"], reject["what is wrong"]) for reject in world.rejects(receipt)] == [
        ("3", "DPS has not refused this record as it was sent last"),
        ("6", "is of no record that was ingested"),
        ("7", "is not a record's identifier"),
    ]
    world.next_night()
    [file] = dps.pick_up()
    assert [judged.row["UNIQUE_ID"] for judged in file.refused] == [uuid_of(5)]
    assert {judged.row["UNIQUE_ID"]: judged.row["ACTION_FLAG"] for judged in file.rows} == {
        uuid_of(1): "update",
        uuid_of(2): "delete",
        uuid_of(4): "new",
        uuid_of(5): "delete",  # which DPS never had
    }
    hear(world, dps)
    assert list(world.register.refused("hpv")) == []


def test_a_record_that_was_withdrawn_while_it_was_not_on_file_comes_back_as_new(
    world: World, dps: Dps, refusals: dict[str, str]
) -> None:
    refusals[uuid_of(1)] = INVALID
    sent(world, dps, row(1))
    hear(world, dps)
    # Withdrawn and stated anew in one file, and then in another.
    receipt = world.upload(upload_of(row(1, vaccinated="N"), row(1, batch="CD5678"), row(1, vaccinated="N")))
    assert receipt.accepted == {"hpv": {"delete": 2, "new": 1}}
    refusals.clear()
    world.next_night()
    [file] = dps.pick_up()
    assert [bool(judged.refused) for judged in file.rows] == [True, False, False]
    hear(world, dps)
    assert entry(world, 1).refusal is None


def test_refused_records_are_listed_by_programme_and_time(world: World, dps: Dps, refusals: dict[str, str]) -> None:
    refusals |= {uuid_of(n): INVALID for n in (1, 3)}
    sent(world, dps, row(1), row(2))
    hear(world, dps)
    first = world.clock.now
    sent(world, dps, row(3))
    hear(world, dps)
    assert [found.record_id for found in world.register.refused("hpv")] == [uuid_of(1), uuid_of(3)]
    assert list(world.register.refused("flu")) == []
    later = (first + timedelta(hours=1)).isoformat(timespec="seconds")
    assert [found.record_id for found in world.register.refused("hpv", later)] == [uuid_of(3)]


# --- dying on the way is tried call by call in tests/faults; here, two at once


def test_an_answer_that_another_run_applies_at_the_same_time_is_counted_once(
    world: World, dps: Dps, refusals: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals[uuid_of(1)] = INVALID
    sent(world, dps, row(1))
    answer(world, dps, "BusAck")
    genuine = type(world.ledger).change
    others: list[CollectRun] = []

    def overtaken(ledger: Any, found: DPSExport, how: Any) -> DPSExport:
        if not others:
            monkeypatch.setattr(type(world.ledger), "change", genuine)
            others.append(world.collect())
        return genuine(ledger, found, how)

    monkeypatch.setattr(type(world.ledger), "change", overtaken)
    world.collect()
    assert sorted(outcomes(others[0])) == ["known already", "processed"]  # as CSV and as JSON
    assert counts(world) == (Processing.PROCESSED, 0, 1)
    assert list(world.client.inbox()) == []
