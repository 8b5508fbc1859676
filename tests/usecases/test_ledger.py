"""Promises of the ledger, on moto's server and on DynamoDB Local, AWS's own."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from vaccinations.aws.ledger import (
    PROCESSING,
    TRANSITIONS,
    DPSExport,
    ImpossibleTransition,
    LeaseLost,
    Ledger,
    LedgerConflict,
    Processing,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaccinations.aws.register import Register
    from vaccinations.settings import Settings

NOW = datetime(2026, 11, 23, 19, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **period: float) -> None:
        self.now += timedelta(**period)


@pytest.fixture(scope="module", params=["moto", "DynamoDB Local"])
def dynamodb(request: pytest.FixtureRequest, aws: Callable[[str], Any]) -> Any:
    return aws("dynamodb") if request.param == "moto" else request.getfixturevalue("dynamodb_local")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(make_ledger: Callable[..., Ledger], clock: Clock) -> Ledger:
    return make_ledger(clock=clock)


def name(moment: datetime, sequence: int) -> tuple[str, str]:
    return f"file-{moment:%Y-%m-%d}-{sequence}.csv", f"mesh-{moment:%Y%m%d%H%M%S}.csv"


def attach(ledger: Ledger, register: Register, batch_id: str, programme: str = "hpv", records: int = 3) -> int | None:
    if register.intake(batch_id) is None:
        register.begin(batch_id, {programme: records})
    return ledger.attach(programme, batch_id, records, lambda n: register.attaching(batch_id, programme, n))


def sealed(ledger: Ledger, register: Register, batch_id: str = "a") -> DPSExport:
    number = attach(ledger, register, batch_id)
    assert number
    return ledger.seal(ledger.get("hpv", number), name)


def leased(ledger: Ledger, register: Register, clock: Clock, batch_id: str = "a") -> DPSExport:
    export = ledger.lease(sealed(ledger, register, batch_id), "run-1", clock() + timedelta(minutes=15))
    assert export
    return export


def accepted(ledger: Ledger, register: Register, clock: Clock, batch_id: str = "a") -> DPSExport:
    return ledger.accept(ledger.begin_sending(leased(ledger, register, clock, batch_id), 1), "MESSAGE1")


def test_batches_gather_in_one_open_export_in_the_order_they_came(ledger: Ledger, register: Register) -> None:
    assert [attach(ledger, register, batch) for batch in ("c", "a", "b")] == [1, 1, 1]
    export = ledger.get("hpv", 1)
    assert (export.export_id, export.status, export.records) == ("hpv-1", Status.OPEN, 9)
    assert export.batches == ("c", "a", "b")


def test_a_batch_is_attached_once_however_often_it_is_tried(ledger: Ledger, register: Register) -> None:
    assert attach(ledger, register, "a") == 1
    assert attach(ledger, register, "a") is None
    assert ledger.get("hpv", 1).records == 3


def test_a_batch_of_a_sealed_export_is_not_attached_again_to_the_next(ledger: Ledger, register: Register) -> None:
    sealed(ledger, register)
    assert attach(ledger, register, "a") is None
    assert [export.number for export in ledger.exports("hpv")] == [1]


def test_a_batch_that_comes_after_the_sealing_goes_into_the_next_export(ledger: Ledger, register: Register) -> None:
    sealed(ledger, register)
    assert attach(ledger, register, "b") == 2
    assert ledger.get("hpv", 1).batches == ("a",)
    assert ledger.get("hpv", 2).batches == ("b",)


def test_a_full_export_lets_the_next_one_open(
    ledger: Ledger, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaccinations.aws.ledger.MAX_BATCHES", 2)
    assert [attach(ledger, register, batch) for batch in "abc"] == [1, 1, 2]


def test_programmes_have_exports_of_their_own(ledger: Ledger, register: Register) -> None:
    attach(ledger, register, "a", "hpv")
    attach(ledger, register, "b", "flu")
    assert [export.export_id for export in ledger.exports("hpv")] == ["hpv-1"]
    assert [export.export_id for export in ledger.exports("flu")] == ["flu-1"]


def test_exports_of_one_day_bear_numbered_names(ledger: Ledger, register: Register, clock: Clock) -> None:
    assert sealed(ledger, register, "a").filename == "file-2026-11-23-1.csv"
    assert sealed(ledger, register, "b").filename == "file-2026-11-23-2.csv"
    clock.forward(days=1)
    assert sealed(ledger, register, "c").filename == "file-2026-11-24-1.csv"


def test_no_two_names_of_a_programme_share_a_second(ledger: Ledger, register: Register) -> None:
    first, second = sealed(ledger, register, "a"), sealed(ledger, register, "b")
    assert first.mesh_filename != second.mesh_filename


def test_only_one_of_two_runs_seals_an_export(ledger: Ledger, register: Register) -> None:
    attach(ledger, register, "a")
    export = ledger.get("hpv", 1)
    ledger.seal(export, name)
    with pytest.raises(LedgerConflict):
        ledger.seal(export, name)


def test_only_one_run_holds_the_lease(ledger: Ledger, register: Register, clock: Clock) -> None:
    export = sealed(ledger, register)
    until = clock() + timedelta(minutes=15)
    assert ledger.lease(export, "run-1", until)
    assert ledger.lease(export, "run-2", until) is None


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_writes_no_more(
    ledger: Ledger, register: Register, clock: Clock
) -> None:
    first = leased(ledger, register, clock)
    clock.forward(minutes=16)
    second = ledger.lease(first, "run-2", clock() + timedelta(minutes=15))
    assert second
    with pytest.raises(LeaseLost):
        ledger.begin_sending(first, 1)
    assert ledger.begin_sending(second, 1).sending_at == clock()


def test_an_export_that_was_accepted_knows_when_and_as_what(ledger: Ledger, register: Register, clock: Clock) -> None:
    export = accepted(ledger, register, clock)
    assert (export.status, export.message_id, export.sent_at) == (Status.ACCEPTED, "MESSAGE1", clock())
    assert export.lease is None


def test_the_next_attempt_has_a_name_and_a_local_id_of_its_own(
    ledger: Ledger, register: Register, clock: Clock
) -> None:
    failed = ledger.fail(leased(ledger, register, clock), {"code": "12", "description": "Unregistered to address"})
    clock.forward(days=1)
    again = ledger.retry(failed, name)
    assert (again.status, again.attempt, again.local_id) == (Status.PENDING, 2, "hpv-1-2")
    assert again.filename != failed.filename
    assert again.earlier[0]["error"]["code"] == "12"
    assert again.message_id == ""
    assert again.sending_at is None


def test_an_answer_about_an_earlier_attempt_changes_nothing(ledger: Ledger, register: Register, clock: Clock) -> None:
    first = accepted(ledger, register, clock)
    again = ledger.retry(ledger.undeliver(first, {"code": "14", "description": "not collected"}), name)
    again = ledger.lease(again, "run-2", clock() + timedelta(minutes=15)) or again
    ledger.accept(again, "MESSAGE2")
    with pytest.raises(LedgerConflict):
        ledger.acknowledge(first)
    assert ledger.get("hpv", 1).status is Status.ACCEPTED


def test_by_status_finds_the_exports_of_every_programme(ledger: Ledger, register: Register) -> None:
    attach(ledger, register, "a", "hpv")
    attach(ledger, register, "b", "flu")
    assert {export.export_id for export in ledger.by_status(Status.OPEN)} == {"hpv-1", "flu-1"}
    assert list(ledger.by_status(Status.ACCEPTED)) == []


MOVES: dict[str, tuple[Status, Callable[[Ledger, DPSExport], DPSExport]]] = {
    "seal": (Status.PENDING, lambda ledger, export: ledger.seal(export, name)),
    "accept": (Status.ACCEPTED, lambda ledger, export: ledger.accept(export, "M")),
    "fail": (Status.FAILED, lambda ledger, export: ledger.fail(export, {"code": "12"})),
    "doubt": (Status.UNCLEAR, lambda ledger, export: ledger.doubt(export, {"code": "300"})),
    "acknowledge": (Status.ACKNOWLEDGED, lambda ledger, export: ledger.acknowledge(export)),
    "undeliver": (Status.UNDELIVERED, lambda ledger, export: ledger.undeliver(export, {"code": "14"})),
}


IMPOSSIBLE = [
    (status, move)
    for status in Status
    for move, (to, _) in MOVES.items()
    if status is not to and (status, to) not in TRANSITIONS
]


@pytest.mark.parametrize(("status", "move"), IMPOSSIBLE)
def test_a_transition_that_is_not_in_the_table_is_impossible(
    ledger: Ledger, register: Register, clock: Clock, status: Status, move: str
) -> None:
    to, make = MOVES[move]
    export = leased(ledger, register, clock)
    with pytest.raises(ImpossibleTransition, match=f"hpv-1: {status} to {to}"):
        make(ledger, dataclasses.replace(export, status=status))
    assert ledger.get("hpv", 1).status is Status.PENDING


def test_an_unknown_export_is_a_key_error(ledger: Ledger) -> None:
    with pytest.raises(KeyError, match="hpv-7"):
        ledger.get("hpv", 7)


# --- what DPS answers


def test_an_answer_finds_the_attempt_that_bore_the_name_in_any_case(
    ledger: Ledger, register: Register, clock: Clock
) -> None:
    first = leased(ledger, register, clock)
    second = ledger.retry(ledger.fail(first, {"code": "12"}), name)
    attach(ledger, register, "b", "flu")
    for export, attempt in ((first, 1), (second, 2)):
        found = ledger.find(export.mesh_filename.removesuffix(".csv").upper())
        assert found
        assert (found[0].export_id, found[0].attempt, found[1]) == ("hpv-1", 2, attempt)
    assert ledger.find("Vaccinations-of-somebody-else") is None
    assert ledger.find("x" * 5_000) is None


def test_a_name_that_was_used_before_the_cursor_was_lost_is_passed_over(
    ledger: Ledger, register: Register, dynamodb: Any, settings: Settings
) -> None:
    first = sealed(ledger, register, "a")
    dynamodb.update_item(
        TableName=settings.exports_table,
        Key={"programme": {"S": "hpv"}, "number": {"N": "0"}},
        UpdateExpression="REMOVE named_on, named, named_at",
    )
    second = sealed(ledger, register, "b")
    assert second.mesh_filename != first.mesh_filename
    for export in (first, second):
        found = ledger.find(export.mesh_filename.removesuffix(".csv"))
        assert found
        assert found[0].export_id == export.export_id


HEAR = {
    Processing.RECEIVED: lambda ledger, export: ledger.receive(export),
    Processing.REFUSED: lambda ledger, export: ledger.refuse(export, "10001/10002"),
    Processing.PROCESSED: lambda ledger, export: ledger.process(export, taken=2, refused=1),
}
WAYS: dict[Processing | None, tuple[Processing, ...]] = {
    None: (),
    Processing.RECEIVED: (Processing.RECEIVED,),
    Processing.REFUSED: (Processing.REFUSED,),
    Processing.PROCESSED: (Processing.PROCESSED,),
}


def test_what_dps_makes_of_a_file_moves_along_its_table_and_leaves_the_delivery_alone(
    ledger: Ledger, register: Register, clock: Clock
) -> None:
    for number, (before, way) in enumerate(WAYS.items()):
        for to in Processing:
            export = accepted(ledger, register, clock, f"{number}-{to}")
            for step in way:
                export = HEAR[step](ledger, export)
            if (before, to) in PROCESSING:
                clock.forward(minutes=1)
                moved = HEAR[to](ledger, export)
                assert (moved.processing, moved.status, moved.updated_at) == (to, Status.ACCEPTED, export.updated_at)
            else:
                with pytest.raises(ImpossibleTransition):
                    HEAR[to](ledger, export)
            assert ledger.get("hpv", export.number).processing is (to if (before, to) in PROCESSING else before)


def test_only_the_first_of_two_runs_notes_an_answer(ledger: Ledger, register: Register, clock: Clock) -> None:
    export = accepted(ledger, register, clock)
    ledger.process(export, taken=3, refused=0)
    for hear in HEAR.values():
        with pytest.raises(LedgerConflict):
            hear(ledger, export)
    assert ledger.get("hpv", 1).refused == 0


def test_a_delivered_file_is_sent_again_only_where_dps_refused_it_and_the_next_attempt_begins_unanswered(
    ledger: Ledger, register: Register, clock: Clock
) -> None:
    export = ledger.acknowledge(accepted(ledger, register, clock))
    with pytest.raises(ImpossibleTransition):
        ledger.retry(export, name)
    received = ledger.receive(export)
    with pytest.raises(ImpossibleTransition):
        ledger.retry(received, name)
    other = ledger.acknowledge(accepted(ledger, register, clock, "b"))
    refused = ledger.refuse(other, "10001/10002")
    again = ledger.retry(refused, name)
    assert (again.status, again.attempt) == (Status.PENDING, 2)
    facts = (again.processing, again.received_at, again.refusal, again.acknowledged_at, again.message_id)
    assert facts == (None, None, "", None, "")
    [before] = again.earlier
    assert (before["processing"], before["refusal"]) == ("refused", "10001/10002")


def test_an_answer_to_an_earlier_attempt_is_noted_with_it(ledger: Ledger, register: Register, clock: Clock) -> None:
    export = ledger.retry(ledger.undeliver(accepted(ledger, register, clock), {"code": "14"}), name)
    ledger.answered_earlier(export, 1, Processing.RECEIVED)
    ledger.answered_earlier(ledger.get("hpv", 1), 1, Processing.PROCESSED)
    ledger.answered_earlier(ledger.get("hpv", 1), 1, Processing.REFUSED)
    ledger.answered_earlier(ledger.get("hpv", 1), 7, Processing.REFUSED)
    found = ledger.get("hpv", 1)
    assert [earlier["processing"] for earlier in found.earlier] == ["processed"]
    assert found.processing is None
