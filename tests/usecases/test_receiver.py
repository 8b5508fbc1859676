"""What follows from DPS's rules, from the upload to what DPS has on file: each rule that a sender feels is a case.

Names and rows by themselves are in tests/unit/local/test_dps.py and tests/unit/vaccinations/test_receiver_rules.py,
what is concluded from answers in test_hearing_back.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from local.dps import Dps, FileStatus, JudgedRow
from tests.receiver import disease_of, faults_of_file
from tests.usecases.rows import HEADER, row, upload_of, uuid_of
from tests.usecases.test_hearing_back import answer, counts, entry, export, metrics, outcomes
from vaccinations.formats.dps_names import FilenameStyle
from vaccinations.formats.requests import requeue_name
from vaccinations.model import lifecycle
from vaccinations.model.export import Processing, Status
from vaccinations.model.outcome import OnFile, Outcome
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.usecases.world import World

__all__ = ["metrics"]

URI = "https://manage-vaccinations-in-schools.nhs.uk/vaccination-records"
THEIRS = "Immunization#0f9c7a3e-3a2f-4a63-8a4e-3c1d5d0f2b11"


@pytest.fixture
def dps(world: World) -> Dps:
    return Dps(world.receiver, clock=world.clock)


def night(world: World, dps: Dps, *rows: str, name: str = "monday.csv") -> list[str]:
    """Have rows uploaded, sent, picked up and answered; return what became of the files."""
    if rows:
        world.upload(upload_of(*rows), name)
    world.next_night()
    files = dps.work()
    world.track()
    world.collect()
    world.do_requests()
    return [str(file.status) for file in files]


def on_file(dps: Dps) -> dict[str, str]:
    return {r.row["UNIQUE_ID"]: r.row["BATCH_NUMBER"] for r in dps.on_file.values() if not r.deleted}


# --- names and rows


def files_at_dps(world: World) -> dict[str, bytes]:
    """Read what waits for DPS, and acknowledge it."""
    found = {}
    for message_id in list(world.receiver.inbox()):
        with world.receiver.download(message_id) as message:
            found[str(message.filename)] = message.read()
    world.acknowledge()
    return found


def test_dps_finds_nothing_wrong_with_any_file_whatever_it_says_and_of_whatever_programme(world: World) -> None:
    names = ("HPV", "Flu", "MenACWY", "MMR", "Td/IPV")
    said: list[dict[str, Any]] = [{}, {"batch": "CD5678"}, {"vaccinated": "N"}, {"forename": "Zoë"}]
    for day, changes in enumerate(said):
        world.upload(upload_of(*(row(n, name, **changes) for n, name in enumerate(names))), f"{day}.csv")
        world.next_night()
        files = files_at_dps(world)
        assert {disease_of(name) for name in files} == {p.dps_vaccine_type for p in PROGRAMMES.values()} - {"MMRV"}
        assert [faults_of_file(name, body, world.clock()) for name, body in files.items()] == [[]] * len(names)


def test_a_file_of_the_guides_name_is_one_that_dps_refuses(world: World, dps: Dps) -> None:
    world.style = FilenameStyle.GUIDE
    assert night(world, dps, row(1)) == ["bad name"]
    assert export(world).processing is Processing.REFUSED


@pytest.mark.parametrize("clock", ["00:30 BST"], indirect=True)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_was_given_and_recorded_in_the_first_hour_of_a_summers_day_is_not_in_the_future_for_dps(
    world: World, dps: Dps, kind: str
) -> None:
    today = world.clock.today
    if kind == "csv":
        body = f"{HEADER},TIME_OF_VACCINATION\n{row(1).replace('2026-10-01', str(today))},00:10\n"
    else:
        body = (
            f'{{"uuid": "{uuid_of(1)}", "forename": "Ann", "surname": "Lee", "date_of_birth": "2014-05-06", "gender": '
            f'"female", "postcode": "SW1A 1AA", "programme": "hpv", "vaccinated_at": "{today}T00:10:00+01:00", '
            f'"recorded_on": "{today}"}}\n'
        )
    assert world.upload(body, f"early.{kind}").accepted == {"hpv": {"new": 1}}
    world.export()
    [file] = dps.work()
    assert [judged.refused for judged in file.rows] == [""]


# --- files that fail as a whole


def test_a_file_that_is_refused_for_its_header_holds_back_later_ones_and_the_person_is_told(
    world: World,
    dps: Dps,
    monkeypatch: pytest.MonkeyPatch,
    metrics: Callable[[], dict[str, float]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as another:
        another.setattr("local.dps.COLUMNS", ("another",))
        world.upload(upload_of(row(1), row(2)))
        world.next_night()
        dps.pick_up()
    # A correction and another record come while the answer is on its way.
    for n, said in ((1, row(1, batch="CD5678")), (3, row(3))):
        world.upload(upload_of(said), f"{n}.csv")
        world.next_night()
    assert [str(file.status) for file in dps.pick_up()] == ["waiting", "waiting"]
    world.track()
    for file in dps.files:
        dps.answer(file)
    assert outcomes(world.collect()) == ["refused"]
    assert metrics()["ExportsRefused"] == 1
    [said] = [vars(record) for record in caplog.records if "as a whole" in record.message]
    assert said["behind_it"] == ["hpv-2", "hpv-3"]
    assert [e.export_id for e in lifecycle.behind(export(world), world.ledger.exports("hpv"))] == said["behind_it"]
    assert "to clear it, for later files may wait behind it" in lifecycle.todo(export(world), world.clock())
    # DPS clears it; the correction is of a record that it never had.
    for file in dps.clear("HPV"):
        dps.answer(file)
    assert outcomes(world.collect()).count("processed") == 2
    assert lifecycle.behind(export(world), world.ledger.exports("hpv")) == []
    refusal = entry(world, 1).refusal
    assert refusal
    assert refusal.outcome is Outcome.UNKNOWN
    # The person sends the first file again: DPS is told what was said last.
    assert world.request(requeue_name("hpv-1")).accepted == {"hpv": {"new": 2}}
    assert night(world, dps) == ["processed"]
    assert on_file(dps) == {uuid_of(1): "CD5678", uuid_of(2): "AB1234", uuid_of(3): "AB1234"}
    assert list(world.register.refused("hpv")) == []


def test_what_waited_too_long_behind_a_failed_file_and_was_dropped_is_sent_again_by_a_person(
    world: World, dps: Dps, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as another:
        another.setattr("local.dps.COLUMNS", ("another",))
        night(world, dps, row(1))
    night(world, dps, row(2), name="tuesday.csv")
    world.clock.forward(days=5)
    assert [file.status for file in dps.clear("HPV")] == [FileStatus.DROPPED]
    assert (export(world, 2).status, counts(world, 2)) == (Status.ACKNOWLEDGED, (None, None, None))
    for number in (1, 2):
        assert world.request(requeue_name(f"hpv-{number}")).accepted == {"hpv": {"new": 1}}
    assert night(world, dps) == ["processed"]
    assert set(on_file(dps)) == {uuid_of(1), uuid_of(2)}


def test_a_file_at_which_dps_crashed_raises_an_alarm_and_loses_nothing_once_it_is_sent_again(
    world: World, metrics: Callable[[], dict[str, float]]
) -> None:
    crashing = True
    dps = Dps(world.receiver, clock=world.clock, crashes=lambda row: crashing and row["UNIQUE_ID"] == uuid_of(2))
    assert night(world, dps, row(9)) == ["processed"]
    assert night(world, dps, row(1), row(2), row(3), name="tuesday.csv") == ["failed"]
    assert counts(world, 2) == (Processing.RECEIVED, None, None)
    assert night(world, dps, row(4), name="wednesday.csv") == ["waiting"]
    metrics()
    world.clock.forward(days=3)
    world.collect()
    assert metrics()["OldestUnprocessedHours"] > 48
    crashing = False
    for file in dps.clear("HPV"):
        dps.answer(file)
    world.collect()
    assert world.request(requeue_name("hpv-2")).accepted == {"hpv": {"new": 3}}
    night(world, dps)
    night(world, dps)
    assert on_file(dps) == {uuid_of(n): "AB1234" for n in (1, 2, 3, 4, 9)}
    # The row that DPS had processed before it crashed was a duplicate, and an update of it followed.
    assert entry(world, 1).action == "update"
    assert list(world.register.refused("hpv")) == []


def test_a_file_that_is_refused_for_its_name_or_a_permission_holds_nothing_back(world: World) -> None:
    """Nothing tells the two kinds of refusal apart, but that later files are answered."""
    dps = Dps(world.receiver, clock=world.clock, permissions={"MAVIS": {"HPV": "CRUDS"}})
    assert night(world, dps, row(1, "MenACWY"), row(2)) == ["processed", "unauthorised"]
    assert night(world, dps, row(3, "MenACWY"), row(4), name="tuesday.csv") == ["processed", "unauthorised"]
    first = world.ledger.get("menacwy", 1)
    assert first.processing is Processing.REFUSED
    assert lifecycle.behind(first, world.ledger.exports("menacwy")) == []


def test_what_was_already_refused_before_says_nothing_of_what_was_answered_since(world: World, dps: Dps) -> None:
    night(world, dps, row(1))
    assert lifecycle.behind(export(world), world.ledger.exports("hpv")) == []


# --- rows


#: What DPS says of a `new`, its class, whether the record is on file then, and as what it is sent again.
REFUSALS = [
    ("Invalid ACTION_FLAG - ACTION_FLAG must be 'NEW', 'UPDATE' or 'DELETE'", Outcome.INVALID, OnFile.NO),
    ("No permissions for requested operation", Outcome.NOT_PERMITTED, OnFile.NO),
    ("UNIQUE_ID or UNIQUE_ID_URI is missing", Outcome.INVALID, OnFile.NO),
    ("Validation errors: lotNumber must be a non-empty string", Outcome.INVALID, OnFile.NO),
    ("1 validation error for Immunization occurrenceDateTime field required (type=x)", Outcome.INVALID, OnFile.NO),
    ("protocolApplied[0].targetDisease[0].coding is a mandatory field", Outcome.INVALID, OnFile.NO),
    ("'None' is not a valid value for protocolApplied[0].targetDisease", Outcome.INVALID, OnFile.NO),
    (f"Immunization resource does not exist. ID: {THEIRS}", Outcome.CONCURRENT, OnFile.UNKNOWN),
    (f"Immunization resource does exist. ID: {THEIRS}", Outcome.COLLISION, OnFile.NO),
    ("An unhandled error occurred during batch processing", Outcome.UNHANDLED, OnFile.UNKNOWN),
    ("Unable to determine diagnostics issue", Outcome.OTHER, OnFile.UNKNOWN),
]


@pytest.mark.parametrize(("text", "outcome", "after"), REFUSALS, ids=[text[:30] for text, *_ in REFUSALS])
@pytest.mark.parametrize("stored", [False, True])
def test_a_new_that_is_refused_in_whatever_words_arrives_once_it_is_sent_again(
    world: World, text: str, outcome: Outcome, after: OnFile, stored: bool
) -> None:
    """Also where DPS had stored it all the same."""
    refusals = {uuid_of(1): text}
    dps = Dps(world.receiver, clock=world.clock, refuse=lambda row: refusals.get(row["UNIQUE_ID"]))
    world.upload(upload_of(row(1)))
    world.next_night()
    [file] = dps.pick_up()
    if stored:
        dps.take(file.rows[0].row | {"BATCH_NUMBER": "OLD1"})
    answer(world, dps)
    world.collect()
    refusal = entry(world, 1).refusal
    assert refusal
    assert (refusal.outcome, entry(world, 1).on_file) == (outcome, after)
    assert counts(world) == (Processing.PROCESSED, 0, 1)
    refusals.clear()
    assert world.request("again.resend", uuid_of(1)).accepted == {"hpv": {"new": 1}}
    night(world, dps)
    night(world, dps)
    assert on_file(dps) == {uuid_of(1): "AB1234"}
    assert entry(world, 1).refusal is None


@pytest.mark.parametrize(("text", "outcome", "after"), REFUSALS, ids=[text[:30] for text, *_ in REFUSALS])
def test_an_update_that_is_refused_in_whatever_words_arrives_once_it_is_sent_again(
    world: World, text: str, outcome: Outcome, after: OnFile
) -> None:
    refusals: dict[str, str] = {}
    dps = Dps(world.receiver, clock=world.clock, refuse=lambda row: refusals.get(row["UNIQUE_ID"]))
    night(world, dps, row(1))
    refusals[uuid_of(1)] = text
    night(world, dps, row(1, batch="CD5678"), name="tuesday.csv")
    as_before = outcome not in {Outcome.CONCURRENT, Outcome.OTHER}
    assert entry(world, 1).on_file is (OnFile.YES if as_before else OnFile.UNKNOWN)
    assert after is not OnFile.YES
    refusals.clear()
    world.request("again.resend", uuid_of(1))
    night(world, dps)
    night(world, dps)
    assert on_file(dps) == {uuid_of(1): "CD5678"}
    assert entry(world, 1).refusal is None


def test_a_withdrawal_of_a_record_that_dps_does_not_have_is_done_and_nobody_has_to_fix_it(
    world: World, dps: Dps
) -> None:
    night(world, dps, row(1))
    dps.on_file.clear()
    night(world, dps, row(1, vaccinated="N"), name="tuesday.csv")
    assert dps.files[-1].refused[0].refused == f"Immunization resource does not exist. ID: {URI}#{uuid_of(1)}"
    assert counts(world, 2) == (Processing.PROCESSED, 1, 0)
    assert (entry(world, 1).refusal, entry(world, 1).on_file) == (None, OnFile.NO)
    assert not [key for key in world.objects() if "-refused-" in key]


def test_rows_that_dps_runs_twice_after_a_failure_count_as_processed(world: World, dps: Dps) -> None:
    """The second time a `new` is a duplicate, and a `delete` is of a record that is not on file."""
    night(world, dps, row(1), row(2))
    world.upload(upload_of(row(1, vaccinated="N"), row(2, batch="CD5678"), row(3)), "tuesday.csv")
    world.next_night()
    [file] = dps.pick_up()
    file.rows[:] = [JudgedRow(r.number, r.row, dps._judge(r.row)) for r in file.rows]
    assert [bool(judged.refused) for judged in file.rows] == [True, False, True]
    answer(world, dps)
    world.collect()
    assert counts(world, 2) == (Processing.PROCESSED, 3, 0)
    world.do_requests()
    night(world, dps)
    assert on_file(dps) == {uuid_of(2): "CD5678", uuid_of(3): "AB1234"}
    assert list(world.register.refused("hpv")) == []


@pytest.mark.parametrize("later", ["update", "withdrawal"])
def test_a_record_that_came_to_dps_deleted_before_is_brought_back(world: World, dps: Dps, later: str) -> None:
    night(world, dps, row(1))
    night(world, dps, row(1, vaccinated="N"), name="tuesday.csv")
    assert on_file(dps) == {}
    night(world, dps, row(1, batch="CD5678"), name="wednesday.csv")
    assert on_file(dps) == {uuid_of(1): "CD5678"}
    if later == "withdrawal":
        night(world, dps, row(1, vaccinated="N"), name="thursday.csv")
        assert on_file(dps) == {}


def test_an_answer_that_comes_hours_later_is_not_missed(
    world: World, dps: Dps, metrics: Callable[[], dict[str, float]]
) -> None:
    """InfAck is written when a file's turn comes, so it may come a day after it was fetched."""
    night(world, dps, row(9))
    world.upload(upload_of(row(1)), "tuesday.csv")
    world.next_night()
    dps.pick_up()
    world.track()
    world.clock.forward(hours=20)
    world.collect()
    metrics()
    answer(world, dps)
    world.collect()
    assert counts(world, 2) == (Processing.PROCESSED, 1, 0)
    assert metrics()["OldestUnprocessedHours"] == 0
